import numpy as np
import pytest

from server.state import BestModel, Evaluation, GlobalModel, RoundSummary
from server.stopping import better, is_due, patience_ran_out


def history(losses):
    """One round a loss; None is a round that changed nothing."""
    return tuple(
        RoundSummary(
            round_number=number,
            survivors=0 if loss is None else 3,
            applied=loss is not None,
            refusals={},
            faults={},
            update_norm=1.0,
            group_norms={},
            validation=None if loss is None else Evaluation(loss, {}),
            seconds=0.1,
            bytes_out=1,
            bytes_in=1,
        )
        for number, loss in enumerate(losses, start=1)
    )


@pytest.mark.parametrize(
    ("patience", "gain", "losses", "stops"),
    [
        (0, 0.0, [1.0] * 9, False),
        (2, 0.0, [], False),
        (2, 0.0, [1.0, 1.0], False),
        (2, 0.0, [1.0, 1.0, 1.0], True),
        (2, 0.0, [1.0, 1.1, 0.9, 1.0], False),
        (2, 0.0, [1.0, 1.1, 0.9, 1.0, 0.9], True),
        (2, 0.1, [1.0, 0.95, 0.92], True),
        (2, 0.1, [1.0, 0.95, 0.85], False),  # 0.15 below the last gain, though never 0.1 below the round before
        (2, 0.0, [1.0, None, None, 1.1], False),
        (2, 0.0, [1.0, None, 1.1, None, 1.1], True),
    ],
)
def test_patience_by_hand(make_plan, patience, gain, losses, stops):
    plan = make_plan(rounds=20, stopping={"patience_rounds": patience, "minimum_gain": gain})
    assert patience_ran_out(plan, history(losses)) is stops


def test_rounds_of_the_head_alone_are_not_judged(make_plan):
    plan = make_plan(rounds=20, adapter={"head_rounds": 3}, stopping={"patience_rounds": 2})
    assert not patience_ran_out(plan, history([0.5, 0.6, 0.7, 1.0, 1.1]))
    assert patience_ran_out(plan, history([0.5, 0.6, 0.7, 1.0, 1.1, 1.1]))


def test_with_method_head_every_round_is_judged(make_plan):
    plan = make_plan(rounds=4, adapter={"method": "head", "head_rounds": 9}, stopping={"patience_rounds": 1})
    assert patience_ran_out(plan, history([0.5, 0.6]))


@pytest.mark.parametrize(
    ("every", "losses", "number", "due"),
    [
        (1, [], 1, True),
        (1, [1.0, None], 3, True),
        (3, [], 1, False),
        (3, [None, None], 3, True),
        (3, [None, None, 1.0], 4, False),
        (3, [None, None, 1.0, None, None], 6, True),
        (3, [None, None, None], 4, True),  # round 3 was due and lost
        (3, [None, None, None, 1.0], 5, False),
        (3, [None, None, None, 1.0, None], 6, True),  # and the next is due at its own time
        (3, [*[None] * 5, 1.0, None], 8, True),  # the last of eight rounds
        (99, [None] * 6, 7, False),
        (99, [None] * 7, 8, True),
    ],
)
def test_which_rounds_are_due_by_hand(make_plan, every, losses, number, due):
    plan = make_plan(rounds=8, stopping={"judge_rounds": every})
    assert is_due(plan, history(losses), number) is due


def test_patience_counts_judged_rounds(make_plan):
    plan = make_plan(rounds=20, stopping={"patience_rounds": 2, "judge_rounds": 3})
    losses = [None, None, 1.0, None, None, 1.1, None, None]
    assert not patience_ran_out(plan, history(losses))
    assert patience_ran_out(plan, history([*losses, 1.1]))


def candidate(number, loss):
    return BestModel(number, loss, GlobalModel(np.zeros(1), np.zeros(0, dtype=np.float32)))


def test_the_lowest_loss_is_best_by_however_little(make_plan):
    plan = make_plan(stopping={"patience_rounds": 2, "minimum_gain": 0.5})
    first, little, equal = candidate(1, 1.0), candidate(2, 0.99), candidate(3, 0.99)
    assert better(plan, None, first) is first
    assert better(plan, first, little) is little
    assert better(plan, little, equal) is little


def test_there_is_no_best_without_patience_or_before_the_adapter_trains(make_plan):
    assert better(make_plan(), None, candidate(1, 1.0)) is None
    plan = make_plan(adapter={"head_rounds": 2}, stopping={"patience_rounds": 2})
    assert better(plan, None, candidate(2, 1.0)) is None
    assert better(plan, None, candidate(3, 1.0)) is not None
