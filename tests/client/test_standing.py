from itertools import product

import pytest

from client.standing import AGREED, ANSWERED, CHARGED, BookStanding, Standing

ORDER, ANSWER, SET, OTHER = "1" * 64, "2" * 64, "3" * 64, "4" * 64
BEGUN = Standing(5, ORDER)
ANSWERED_5 = Standing(5, ORDER, ANSWER)
AGREED_5 = Standing(5, ORDER, ANSWER, SET)


@pytest.mark.parametrize(
    ("standing", "book"),
    [
        (Standing(), BookStanding(0, CHARGED, "")),
        (BEGUN, BookStanding(5, CHARGED, ORDER)),
        (ANSWERED_5, BookStanding(5, ANSWERED, ANSWER)),
        (AGREED_5, BookStanding(5, AGREED, SET)),
    ],
)
def test_the_last_step_is_what_a_book_tells(standing, book):
    assert standing.book == book


def test_steps_come_one_after_the_other_once_each():
    assert BEGUN.after(5, "answered", ANSWER) == ANSWERED_5
    assert ANSWERED_5.after(5, "agreed", SET) == AGREED_5
    allowed = {(BEGUN, 5, "answered"), (ANSWERED_5, 5, "agreed")}
    for standing, number, step in product(
        (Standing(), BEGUN, ANSWERED_5, AGREED_5), (0, 4, 5, 6), ("answered", "agreed")
    ):
        assert (standing.after(number, step, OTHER) is not None) == ((standing, number, step) in allowed)


def test_a_step_is_known_by_its_round_and_digest():
    assert AGREED_5.has_taken(5, "answered", ANSWER)
    assert AGREED_5.has_taken(5, "agreed", SET)
    for number, step, digest in ((4, "answered", ANSWER), (5, "answered", SET), (5, "agreed", ANSWER)):
        assert not AGREED_5.has_taken(number, step, digest)


def test_a_book_may_stand_where_it_is_known_to_or_one_step_further():
    """Against a walk over all that a book can do: each of its steps, from each of them on."""
    places = [BookStanding()] + [
        BookStanding(number, stage, f"{number}{stage}") for number in (1, 2, 3) for stage in (CHARGED, ANSWERED, AGREED)
    ]

    def next_steps(place):
        following = {at for at in places if at.round_number > place.round_number and at.stage == CHARGED}
        if place.round_number:
            following |= {at for at in places if at.place == (place.round_number, place.stage + 1)}
        return following | {place}

    for known, book in product(places, places):
        assert book.may_follow(known) == (book in next_steps(known))


@pytest.mark.parametrize("stage", [CHARGED, ANSWERED, AGREED])
def test_in_the_same_place_with_something_else_it_may_not(stage):
    assert not BookStanding(2, stage, OTHER).may_follow(BookStanding(2, stage, ORDER))


def test_an_unbegun_book_has_no_digest():
    assert not BookStanding(0, CHARGED, OTHER).may_follow(BookStanding())
    assert not BookStanding(0, ANSWERED, OTHER).may_follow(BookStanding())
