"""A busy audit log puts a note off, and loses none."""

import pytest

from client.spending_notes import SpendingNotes
from common.audit_events import RoundCharged
from common.errors import TryAgainError


class Busy:
    """An audit log that takes a line only while it is not held."""

    def __init__(self):
        self.held, self.lines = False, []

    def record(self, event):
        if self.held:
            raise TryAgainError("another process holds the log")
        self.lines.append(event)


def charged(number):
    return RoundCharged(plan="a" * 64, round_number=number, order="b" * 64)


def test_what_a_busy_log_did_not_take_comes_first_the_next_time():
    log = Busy()
    notes = SpendingNotes(log)
    log.held = True
    with pytest.raises(TryAgainError):
        notes.note(charged(1))
    with pytest.raises(TryAgainError):
        notes.settle()
    assert log.lines == []
    log.held = False
    notes.note(charged(2))
    assert log.lines == [charged(1), charged(2)]
    notes.settle()
    assert log.lines == [charged(1), charged(2)], "each once"
