"""Every request is in a line, and there are few lines."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from server.gateway.access import NO_ANSWER, OTHERS, REFUSED, AccessBook, AccessLine

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def make_book(lines=100):
    clock = Clock()
    return AccessBook(60.0, lines, clock, lambda: NOW), clock


def test_a_new_kind_is_told_at_once_and_its_repeats_when_the_window_ends():
    book, clock = make_book()
    book.note("a", "/p", 200, 3, 4)
    assert book.due() == (AccessLine(NOW, "a", "/p", 200, 1, 3, 4),)
    book.note("a", "/p", 200, 5, 6)
    book.note("a", "/p", 200, 7, 8)
    assert book.due() == ()
    clock.seconds = 60.0
    assert book.due() == (AccessLine(NOW, "a", "/p", 200, 2, 12, 14),)


def test_what_went_on_in_the_window_before_waits_for_the_end_of_this_one():
    book, clock = make_book()
    for window in range(1, 4):
        book.note("a", "/p", 200)
        assert len(book.due()) == (window == 1)
        clock.seconds = 60.0 * window
        assert len(book.due()) == (window > 1)
    clock.seconds = 240.0
    assert book.due() == ()
    book.note("a", "/p", 200)
    assert len(book.due()) == 1


def test_status_path_and_address_are_told_apart():
    book, _ = make_book()
    book.note("a", "/p", 200)
    book.note("a", "/p", 503)
    book.note("a", REFUSED, 404)
    book.note("b", "/p", 200)
    assert len(book.due()) == 4


def test_a_flood_from_many_addresses_makes_few_lines():
    book, clock = make_book(lines=10)
    told = []
    for number in range(5000):
        book.note(str(number), REFUSED, 404, 1)
        told += book.due()
    clock.seconds = 60.0
    told += book.due()
    assert len(told) <= 2 * 11
    assert sum(line.requests for line in told) == sum(line.bytes_in for line in told) == 5000
    assert (OTHERS, NO_ANSWER) in {(line.address, line.status) for line in told}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.floats(0, 40), st.booleans()), max_size=60))
def test_no_request_is_lost_or_told_twice(events):
    book, clock = make_book(lines=3)
    told: Counter[str] = Counter()
    for address, size, pause, look in events:
        book.note(address, "/p", 200, size)
        clock.seconds += pause
        for line in book.due() if look else ():
            told["requests"] += line.requests
            told["bytes"] += line.bytes_in
    for line in book.close_window():
        told["requests"] += line.requests
        told["bytes"] += line.bytes_in
    assert told["requests"] == len(events)
    assert told["bytes"] == sum(size for _, size, _, _ in events)
    assert book.close_window() == ()
