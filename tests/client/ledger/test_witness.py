"""Book and ledger as they are on disk; what a kill between the two leaves, and what an older copy of either does."""

import shutil
from contextlib import contextmanager

import pytest

from client.charges import Charges
from client.ledger.witness import LedgerWitness
from client.spending_notes import SpendingNotes
from client.standing import ANSWERED, BookStanding, Standing
from common.audit import AuditLog, read_audit
from common.audit_events import RoundCharged
from common.errors import BudgetError, IntegrityError, RollbackError, TryAgainError
from common.identity import public_name
from tests.client.ledger_site import Site, reserve
from tests.client.small_plan import ROUNDS, small_plan

PLAN = small_plan()
ORDER, OTHER = "1" * 64, "2" * 64
CONTEXT, COHORT = "c" * 64, ("east", "north", "west")
SET, ANOTHER = ("east", "north"), ("north", "west")


class Place:
    """One site's ledger, audit log and run folder."""

    def __init__(self, folder):
        self.folder, self.run = folder, folder / "run"
        self.site = Site(folder / "home").create()
        self.run.mkdir()
        (folder / "keys").mkdir()
        with self.site.open() as ledger:
            reserve(ledger, PLAN.digest, rounds=ROUNDS)

    @contextmanager
    def opened(self):
        """Book, ledger and witness, as a node opens them."""
        audit = AuditLog(self.folder / "audit.jsonl", self.folder / "keys" / "audit.anchor", self.site.identity)
        with self.site.open() as ledger:
            witness = LedgerWitness(ledger, SpendingNotes(audit), PLAN.digest)
            yield Charges(self.run, PLAN, "north", must_exist=witness.begun, witness=witness), ledger

    @property
    def charged(self):
        public = public_name(self.site.identity)
        entries = read_audit(self.folder / "audit.jsonl", self.folder / "keys" / "audit.anchor", public).entries
        return [entry.event.round_number for entry in entries if isinstance(entry.event, RoundCharged)]

    def copy(self, name):
        shutil.copytree(self.run, self.folder / name)

    def put_back(self, name):
        shutil.rmtree(self.run)
        shutil.copytree(self.folder / name, self.run)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


STEPS = [
    lambda book: book.charge(2, ORDER, CONTEXT, COHORT),
    lambda book: book.keep_answer(b"masked"),
    lambda book: book.agree_to(2, SET),
    lambda book: book.charge(3, OTHER, CONTEXT, COHORT),
    lambda book: book.keep_answer(b"more"),
]


def test_each_step_is_one_entry_and_stands_there_before_it_returns(place):
    with place.opened() as (book, ledger):
        before = len(ledger.entries())
        for count, step in enumerate(STEPS, start=1):
            step(book)
            assert ledger.committed(PLAN.digest).book == book.standing
            assert len(ledger.entries()) == before + count
    assert place.charged == [2, 3]
    assert place.site.read().state.committed(PLAN.digest).book == BookStanding(3, ANSWERED, book.standing.digest)


def test_what_is_done_again_costs_no_entry(place):
    with place.opened() as (book, ledger):
        for step in STEPS[:3]:
            step(book)
        before = len(ledger.entries())
        book.agree_to(2, SET)
        assert book.kept_answer(ORDER) == b"masked"
        assert len(ledger.entries()) == before
    with place.opened() as (_, ledger):
        assert len(ledger.entries()) == before
    assert place.charged == [2]


@pytest.mark.parametrize("steps", range(len(STEPS)))
def test_a_book_of_any_earlier_moment_is_noticed(place, steps):
    with place.opened() as (book, _):
        for step in STEPS[:steps]:
            step(book)
        place.copy("older")
        for step in STEPS[steps:]:
            step(book)
    place.put_back("older")
    with pytest.raises(RollbackError, match="the run's book is an older copy") as error, place.opened():
        pass
    assert "ask for a new plan" in error.value.hint


@pytest.mark.parametrize("steps", range(1, len(STEPS) + 1))
def test_killed_between_book_and_ledger_the_ledger_catches_up(place, steps, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with place.opened() as (book, ledger):
        for step in STEPS[: steps - 1]:
            step(book)
        before = len(ledger.entries())
        with monkeypatch.context() as patch:
            patch.setattr("client.ledger.ledger.Ledger.commit", kill)
            patch.setattr("client.ledger.ledger.Ledger.step", kill)
            with pytest.raises(Killed):
                STEPS[steps - 1](book)
    with place.opened() as (book, ledger):
        assert len(ledger.entries()) == before + 1
        assert ledger.committed(PLAN.digest).book == book.standing


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_ledger_that_is_further_behind_was_put_back(place, steps):
    older = place.site.copy("older")
    with place.opened() as (book, _):
        for step in STEPS[:steps]:
            step(book)
    place.site.put_back(older)
    with pytest.raises(RollbackError, match="the ledger is an older copy"), place.opened():
        pass


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_book_with_something_else_in_the_same_place_is_noticed(tmp_path, steps):
    other = [
        lambda book: book.charge(2, OTHER, CONTEXT, COHORT),
        lambda book: book.keep_answer(b"another"),
        lambda book: book.agree_to(2, ANOTHER),
    ]
    place = Place(tmp_path)
    with place.opened() as (book, _):
        for step in STEPS[:steps]:
            step(book)
    shutil.rmtree(place.run)
    place.run.mkdir()
    book = Charges(place.run, PLAN, "north")  # by somebody who has no ledger
    for step in [*STEPS[: steps - 1], other[steps - 1]]:
        step(book)
    with pytest.raises(RollbackError), place.opened():
        pass


def test_a_lost_book_is_not_begun_anew(place):
    with place.opened() as (book, _):
        STEPS[0](book)
    shutil.rmtree(place.run)
    place.run.mkdir()
    with pytest.raises(IntegrityError, match="is missing"), place.opened():
        pass


def test_before_a_round_there_need_not_be_a_book(place):
    with place.opened() as (book, ledger):
        assert ledger.committed(PLAN.digest) == Standing()
        assert book.last_round == 0
    shutil.rmtree(place.run)
    place.run.mkdir()
    with place.opened():
        pass


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_nothing_follows_from_a_step_that_the_ledger_did_not_take(place, steps, monkeypatch):
    """A disk that is full for a moment: the same step again reaches the ledger before anything follows from it."""
    again = [
        lambda book: book.charge(2, ORDER, CONTEXT, COHORT),
        lambda book: book.kept_answer(ORDER),
        lambda book: book.agree_to(2, SET),
    ]

    def full(*_):
        raise TryAgainError("the ledger cannot be used now")

    with place.opened() as (book, ledger):
        for step in STEPS[: steps - 1]:
            step(book)
        with monkeypatch.context() as patch:
            patch.setattr("client.ledger.ledger.Ledger.commit", full)
            patch.setattr("client.ledger.ledger.Ledger.step", full)
            for attempt in (STEPS[steps - 1], again[steps - 1]):
                with pytest.raises(TryAgainError):
                    attempt(book)
        again[steps - 1](book)
        assert ledger.committed(PLAN.digest).book == book.standing


def test_after_a_recovery_no_step_is_taken(place):
    with place.opened() as (book, ledger):
        STEPS[0](book)
        ledger.recover("a test")
        with pytest.raises(BudgetError):
            STEPS[1](book)
    with pytest.raises(BudgetError), place.opened():
        pass


def test_a_round_that_a_busy_log_did_not_take_is_written_before_the_next_step(place, monkeypatch):
    def busy(*_):
        raise TryAgainError("another process holds the log")

    with place.opened() as (book, ledger):
        with monkeypatch.context() as patch:
            patch.setattr("common.audit.AuditLog.record", busy)
            for attempt in (STEPS[0], STEPS[0]):
                with pytest.raises(TryAgainError):
                    attempt(book)
        assert ledger.committed(PLAN.digest).last_round == 2
        assert place.charged == []
        book.charge(2, ORDER, CONTEXT, COHORT)
        assert place.charged == [2]
