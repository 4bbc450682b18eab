import pytest

from common.errors import CloisterError, SecureAggregationError, TooFewSitesError
from server.failures import check_every_group_moved, check_sites_answer, check_something_was_applied
from server.state import RoundSummary

ABORTED = (0, "too few inputs"), (2, "too few shares"), (0, "too few inputs")


def history(*rounds):
    """One round an entry: `applied`, or how many sites answered and why secure aggregation gave up."""
    return tuple(
        RoundSummary(number, 3, True, {}, {}, 1.0, {"head": 1.0}, None, 0.1, 1, 1)
        if entry == "applied"
        else RoundSummary(number, entry[0], False, {}, {}, 0.0, {"head": 0.0}, None, 0.1, 1, 1, entry[1])
        for number, entry in enumerate(rounds, start=1)
    )


def test_three_aborts_in_a_row_end_the_run_as_what_they_are(make_plan):
    with pytest.raises(SecureAggregationError) as caught:
        check_sites_answer(make_plan(rounds=9), history("applied", *ABORTED))
    assert caught.value.exit_code == 15
    assert caught.value.message == (
        "secure aggregation gave up in each of the last 3 rounds (too few inputs, too few shares)"
    )
    assert "stays spent" in caught.value.hint


def test_one_empty_round_without_an_abort_means_that_sites_are_missing(make_plan):
    with pytest.raises(TooFewSitesError, match=r"last 3 rounds \(answers: 0, 2, 1\)") as caught:
        check_sites_answer(make_plan(rounds=9), history(*ABORTED[:2], (1, "")))
    assert caught.value.exit_code == 16


@pytest.mark.parametrize("rounds", [ABORTED[:2], (*ABORTED, "applied"), (*ABORTED[:2], "applied", *ABORTED[:2])])
def test_fewer_in_a_row_do_not_end_a_run(make_plan, rounds):
    check_sites_answer(make_plan(rounds=9), history(*rounds))


def test_at_the_very_end_nothing_would_be_saved_by_stopping(make_plan):
    finished = history("applied", *ABORTED)
    check_sites_answer(make_plan(rounds=4), finished)
    check_something_was_applied(make_plan(rounds=4), finished)


@pytest.mark.parametrize(
    ("rounds", "error"), [(ABORTED, SecureAggregationError), ((*ABORTED, (1, "")), TooFewSitesError)]
)
def test_a_run_of_empty_rounds_only_fails(make_plan, rounds, error):
    with pytest.raises(error, match="in any round"):
        check_something_was_applied(make_plan(rounds=len(rounds)), history(*rounds))


def test_a_group_that_moved_in_one_round_has_moved():
    check_every_group_moved({"head": slice(0, 1)}, history(*ABORTED, "applied"))
    with pytest.raises(CloisterError, match="the head did not move in any of 3 rounds"):
        check_every_group_moved({"head": slice(0, 1)}, history(*ABORTED))
