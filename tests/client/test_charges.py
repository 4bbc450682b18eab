import hashlib
import json

import pytest

import client.charges
import client.sealed_file
from client.charges import Charges
from common.errors import IntegrityError, RefusedError
from tests.client.small_plan import ROUNDS, STEPS, small_plan

PLAN = small_plan()
ORDER = "a" * 64
OTHER = "b" * 64
BOOK = "charges.book"
ANSWER = "charges.answer"


@pytest.fixture
def charges(tmp_path):
    return Charges(tmp_path, PLAN, "north")


def reopened(folder):
    return Charges(folder, PLAN, "north", must_exist=True)


def standing(charges):
    return charges.rounds_charged, charges.last_round, charges.steps_charged


# --- the ordinary course ---------------------------------------------------------------------------------------------


def test_a_new_book_is_on_disk_and_charges_nothing(charges, tmp_path):
    assert standing(charges) == standing(reopened(tmp_path)) == (0, 0, 0)
    assert (tmp_path / BOOK).stat().st_mode & 0o777 == 0o600


def test_a_charge_is_on_disk_before_it_returns(charges, tmp_path):
    charges.charge(1, ORDER)
    assert standing(charges) == standing(reopened(tmp_path)) == (1, 1, STEPS)


def test_an_answer_is_on_disk_before_it_returns_and_for_its_order_only(charges, tmp_path):
    charges.charge(1, ORDER)
    assert charges.kept_answer(ORDER) is None
    charges.keep_answer(b"line\nand line\x00")
    for book in (charges, reopened(tmp_path)):
        assert book.kept_answer(ORDER) == b"line\nand line\x00"
        assert book.kept_answer(OTHER) is None


def test_the_same_unanswered_order_is_charged_once_over_restarts(charges, tmp_path):
    for reopen in (False, False, True, True):
        book = reopened(tmp_path) if reopen else charges
        book.charge(2, ORDER)
        assert standing(book) == (1, 2, STEPS)


def test_a_second_process_with_the_book_is_refused_before_it_charges_or_answers(charges, tmp_path):
    second = reopened(tmp_path)
    charges.charge(1, ORDER)
    with pytest.raises(IntegrityError, match="changed by somebody else"):
        second.charge(1, OTHER)
    third = reopened(tmp_path)
    charges.keep_answer(b"one")
    with pytest.raises(IntegrityError, match="changed by somebody else"):
        third.keep_answer(b"two")
    assert reopened(tmp_path).kept_answer(ORDER) == b"one"


def test_rounds_may_be_skipped_and_cost_nothing_then(charges):
    charges.charge(1, ORDER)
    charges.charge(ROUNDS, OTHER)
    assert standing(charges) == (2, ROUNDS, 2 * STEPS)


def test_a_new_round_drops_the_answer_of_the_last(charges, tmp_path):
    charges.charge(1, ORDER)
    charges.keep_answer(b"one")
    charges.charge(2, OTHER)
    assert reopened(tmp_path).kept_answer(ORDER) is None
    assert reopened(tmp_path).kept_answer(OTHER) is None


def test_the_answer_is_for_the_owner_only_and_goes_with_the_next_charge(charges, tmp_path):
    charges.charge(1, ORDER)
    empty = (tmp_path / BOOK).stat().st_size
    charges.keep_answer(bytes(100_000))
    assert (tmp_path / ANSWER).stat().st_mode & 0o777 == 0o600
    # The book is written several times a round, and stays short whatever the answer.
    assert (tmp_path / BOOK).stat().st_size < empty + 100
    charges.charge(2, OTHER)
    assert [path.name for path in tmp_path.iterdir()] == [BOOK]


def test_an_answer_that_the_book_does_not_name_never_counts(charges, tmp_path, monkeypatch):
    charges.charge(1, ORDER)
    with monkeypatch.context() as patch:
        patch.setattr(client.charges, "write_sealed", None)  # killed between the two writes
        with pytest.raises(TypeError):
            charges.keep_answer(b"never left")
    assert (tmp_path / ANSWER).read_bytes() == b"never left"
    for book in (charges, reopened(tmp_path)):
        assert book.kept_answer(ORDER) is None
    book.charge(1, ORDER)
    assert standing(book) == (1, 1, STEPS)
    book.keep_answer(b"one")
    assert reopened(tmp_path).kept_answer(ORDER) == b"one"


def test_the_answer_of_the_round_before_never_counts(charges, tmp_path):
    charges.charge(1, ORDER)
    charges.keep_answer(b"one")
    charges.charge(2, OTHER)
    (tmp_path / ANSWER).write_bytes(b"one")  # as if killed before it was removed
    book = reopened(tmp_path)
    assert book.kept_answer(ORDER) is book.kept_answer(OTHER) is None
    book.keep_answer(b"two")
    assert reopened(tmp_path).kept_answer(OTHER) == b"two"
    (tmp_path / ANSWER).write_bytes(b"one")  # put back
    with pytest.raises(IntegrityError, match="an answer that is damaged"):
        book.kept_answer(OTHER)


def test_steps_never_exceed_the_plans(charges):
    for round_number in range(1, ROUNDS + 1):
        charges.charge(round_number, f"{round_number:064x}")
    assert charges.steps_charged == PLAN.steps
    with pytest.raises(RefusedError, match="round 5 cannot be charged: unexpected-round"):
        charges.charge(ROUNDS + 1, ORDER)
    assert charges.steps_charged == PLAN.steps


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("round_number", "order", "fault"),
    [
        (0, ORDER, "unexpected-round"),
        (1, ORDER, "unexpected-round"),
        (2, ORDER, None),
        (2, OTHER, "conflicting-order"),
        (3, OTHER, None),
        (ROUNDS, OTHER, None),
        (ROUNDS + 1, OTHER, "unexpected-round"),
    ],
)
@pytest.mark.parametrize("answered", [False, True])
def test_faults_after_round_two_was_charged(charges, round_number, order, fault, answered):
    charges.charge(2, ORDER)
    if answered:
        charges.keep_answer(b"two")
    assert charges.fault(round_number, order) == fault
    if fault is not None:
        with pytest.raises(RefusedError, match=fault):
            charges.charge(round_number, order)
        assert standing(charges) == (1, 2, STEPS)


def test_an_answered_round_cannot_be_charged_or_answered_again(charges):
    charges.charge(1, ORDER)
    charges.keep_answer(b"one")
    with pytest.raises(RefusedError, match="it was answered already"):
        charges.charge(1, ORDER)
    with pytest.raises(RefusedError, match="no open charge"):
        charges.keep_answer(b"two")
    assert charges.kept_answer(ORDER) == b"one"


def test_no_answer_without_a_charge(charges):
    with pytest.raises(RefusedError, match="no open charge"):
        charges.keep_answer(b"one")


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_book_with_any_byte_changed_or_cut_off_is_refused(charges, tmp_path):
    charges.charge(1, ORDER)
    charges.keep_answer(b"one")
    whole = (tmp_path / BOOK).read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x40
        for damaged in (bytes(changed), whole[:position]):
            (tmp_path / BOOK).write_bytes(damaged)
            with pytest.raises(IntegrityError, match="is damaged"):
                reopened(tmp_path)
            assert (tmp_path / BOOK).read_bytes() == damaged


@pytest.mark.parametrize(
    ("damaged", "rule"),
    [(b"onf", "is damaged"), (b"on", "is damaged"), (b"one\n", "is damaged"), (b"", "is damaged"), (None, "has lost")],
)
def test_an_answer_that_is_not_the_one_the_book_names_is_refused(charges, tmp_path, damaged, rule):
    charges.charge(1, ORDER)
    charges.keep_answer(b"one")
    if damaged is None:
        (tmp_path / ANSWER).unlink()
    else:
        (tmp_path / ANSWER).write_bytes(damaged)
    for attempt in (lambda: reopened(tmp_path), lambda: charges.kept_answer(ORDER)):
        with pytest.raises(IntegrityError, match=rule) as error:
            attempt()
        assert "start a new run" in error.value.hint


def test_a_lost_book_is_not_begun_anew(tmp_path):
    with pytest.raises(IntegrityError, match="is missing") as error:
        reopened(tmp_path)
    assert "without it nobody knows what was spent" in error.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("plan", "site"), [(small_plan(name="other"), "north"), (PLAN, "south")])
def test_a_book_of_another_plan_or_site_is_refused(charges, tmp_path, plan, site):
    with pytest.raises(IntegrityError, match="belongs to another plan or site"):
        Charges(tmp_path, plan, site)


def sealed(header):
    body = json.dumps(header).encode() + b"\n"
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"note": ""},
        {"rounds_charged": -1},
        {"rounds_charged": 1.0},
        {"rounds_charged": 3, "last_round": 2},
        {"rounds_charged": 0},
        {"last_round": 0},
        {"last_order": ""},
        {"rounds_charged": 0, "last_round": 0},
        {"rounds_charged": 0, "last_round": 0, "last_order": "", "answered": True, "answer_digest": "d" * 64},
        {"answered": True},
        {"answer_digest": "d" * 64},
    ],
)
def test_a_book_that_this_version_cannot_have_written_is_refused(tmp_path, changes):
    header = {
        "format_version": 1, "plan_digest": PLAN.digest, "site": "north",
        "rounds_charged": 1, "last_round": 2, "last_order": ORDER, "answered": False,
    }  # fmt: skip
    (tmp_path / BOOK).write_bytes(sealed(header))
    assert standing(reopened(tmp_path)) == (1, 2, STEPS)
    (tmp_path / BOOK).write_bytes(sealed({**header, **changes}))
    with pytest.raises(IntegrityError, match="is not one that this version writes"):
        reopened(tmp_path)


def test_a_book_with_an_answer_in_it_is_of_another_version(charges, tmp_path):
    body = (tmp_path / BOOK).read_bytes()[:-32] + b"an answer"
    (tmp_path / BOOK).write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(IntegrityError, match="is not one that this version writes"):
        reopened(tmp_path)


def test_a_book_beyond_the_plans_last_round_is_refused(tmp_path):
    header = {
        "plan_digest": PLAN.digest,
        "site": "north",
        "rounds_charged": 1,
        "last_round": ROUNDS + 1,
        "last_order": ORDER,
    }
    (tmp_path / BOOK).write_bytes(sealed(header))
    with pytest.raises(IntegrityError, match="belongs to another plan or site"):
        reopened(tmp_path)


def test_a_book_changed_by_another_process_is_noticed(charges, tmp_path):
    charges.charge(1, ORDER)
    charges.keep_answer(b"one")
    reopened(tmp_path).charge(2, OTHER)
    with pytest.raises(IntegrityError, match="was changed by somebody else"):
        charges.kept_answer(ORDER)


def test_when_the_disk_is_full_the_object_claims_no_more_than_the_file(charges, tmp_path, monkeypatch):
    charges.charge(1, ORDER)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client.sealed_file, "write_durably", full)
    for attempt in (lambda: charges.charge(2, OTHER), lambda: charges.keep_answer(b"one")):
        with pytest.raises(OSError, match="No space left"):
            attempt()
        assert standing(charges) == standing(reopened(tmp_path)) == (1, 1, STEPS)
        assert charges.kept_answer(ORDER) is None


# --- the one survivor set of a round ---------------------------------------------------------------------------------

CONTEXT, COHORT = "c" * 64, ("east", "north", "west")
SET, ANOTHER = ("east", "north"), ("north", "west")


@pytest.fixture
def answered(charges):
    """Round 2 is paid for and answered with masked numbers."""
    charges.charge(2, ORDER, CONTEXT, COHORT)
    charges.keep_answer(b"masked")
    return charges


def test_what_a_round_is_bound_to_is_kept_over_restarts_until_the_next_one(answered, tmp_path):
    for book in (answered, reopened(tmp_path)):
        assert (book.context, book.cohort) == (CONTEXT, COHORT)
    answered.charge(3, OTHER)
    for book in (answered, reopened(tmp_path)):
        assert (book.context, book.cohort) == ("", ())


def test_one_survivor_set_is_agreed_to_and_on_disk_before_it_returns(answered, tmp_path):
    assert answered.survivors_fault(2, SET) is None
    answered.agree_to(2, SET)
    for book in (answered, reopened(tmp_path)):
        assert book.survivors_fault(2, SET) is None
        assert book.survivors_fault(2, ANOTHER) == "conflicting-survivors"
        with pytest.raises(RefusedError, match="round 2 cannot be agreed to: conflicting-survivors"):
            book.agree_to(2, ANOTHER)
        book.agree_to(2, SET)
        assert book.kept_answer(ORDER) == b"masked"


def test_a_new_round_has_a_survivor_set_of_its_own(answered):
    answered.agree_to(2, SET)
    answered.charge(3, OTHER, CONTEXT, COHORT)
    answered.keep_answer(b"more")
    assert answered.survivors_fault(2, SET) == "unexpected-round"
    answered.agree_to(3, ANOTHER)
    assert answered.survivors_fault(3, SET) == "conflicting-survivors"


def test_nobody_agrees_about_a_round_that_is_not_the_last_answered_and_masked_one(charges):
    def refused(number):
        assert charges.survivors_fault(number, SET) == "unexpected-round"
        with pytest.raises(RefusedError, match=f"survivors of round {number} cannot be agreed to: unexpected-round"):
            charges.agree_to(number, SET)

    refused(0)
    refused(1)
    charges.charge(1, ORDER, CONTEXT, COHORT)
    refused(1)  # not answered
    charges.keep_answer(b"masked")
    refused(2)
    charges.charge(2, OTHER)
    charges.keep_answer(b"plain")
    refused(1)
    refused(2)  # not masked


def test_when_the_disk_is_full_no_set_was_agreed_to(answered, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(client.sealed_file, "write_durably", full)
        with pytest.raises(OSError, match="no space"):
            answered.agree_to(2, SET)
    assert answered.survivors_fault(2, ANOTHER) is None
    answered.agree_to(2, ANOTHER)


def test_a_second_process_with_the_book_agrees_to_nothing(answered, tmp_path):
    second = reopened(tmp_path)
    answered.agree_to(2, SET)
    with pytest.raises(IntegrityError, match="changed by somebody else"):
        second.agree_to(2, ANOTHER)


@pytest.mark.parametrize(
    "impossible",
    [
        {"cohort": []},
        {"context": ""},
        {"answered": False, "answer_digest": "", "survivors": ["east"]},
        {"answer_digest": ""},
        {"last_round": 0},
    ],
)
def test_a_book_whose_masked_round_is_impossible_is_refused(answered, tmp_path, impossible):
    header = json.loads((tmp_path / BOOK).read_bytes()[:-32])
    (tmp_path / BOOK).write_bytes(sealed(header))
    assert standing(reopened(tmp_path)) == standing(answered)
    (tmp_path / BOOK).write_bytes(sealed(header | impossible))
    with pytest.raises(IntegrityError, match="not one that this version writes"):
        reopened(tmp_path)
