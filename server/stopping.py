"""Which rounds are judged on the public validation set, which is the best, and when patience runs out."""

from __future__ import annotations

import math

from common.plan import Plan
from server.state import BestModel, RoundSummary


def is_due(plan: Plan, history: tuple[RoundSummary, ...], round_number: int) -> bool:
    """Whether the model of a round is to be judged: every `judge_rounds` rounds, and after the last.

    Edge cases:
        A round that was lost is not judged; where it was due, the next round that changes the model is judged instead.

    Args:
        plan: The plan.
        history: The rounds before.
        round_number: The round that has just changed the model.
    """
    every = plan.stopping.judge_rounds
    last = max((summary.round_number for summary in history if summary.validation is not None), default=0)
    return round_number == plan.rounds or round_number // every > last // every


def better(plan: Plan, best: BestModel | None, candidate: BestModel) -> BestModel | None:
    """The best model so far, given one that was judged; None while the plan has no patience.

    The lowest loss wins, by however little: `minimum_gain` is about stopping, not about choosing.
    """
    if not plan.stopping.patience_rounds or candidate.round_number < _first_round_that_counts(plan):
        return best
    return candidate if best is None or candidate.loss < best.loss else best


def patience_ran_out(plan: Plan, history: tuple[RoundSummary, ...]) -> bool:
    """Whether the last `patience_rounds` judged rounds brought no gain of more than `minimum_gain`.

    Edge cases:
        Rounds that changed nothing do not count, nor do those that were not due. Nor do those that train the head
        alone, or a run could stop before its adapter was ever trained. A slow fall adds up: the gain is against the
        loss at the last gain, not against the round before.
    """
    reference, without_gain = math.inf, 0
    for loss in _judged_losses(plan, history):
        if loss < reference - plan.stopping.minimum_gain:
            reference, without_gain = loss, 0
        else:
            without_gain += 1
    return 0 < plan.stopping.patience_rounds <= without_gain


def _first_round_that_counts(plan: Plan) -> int:
    return 1 if plan.adapter.method == "head" else plan.adapter.head_rounds + 1


def _judged_losses(plan: Plan, history: tuple[RoundSummary, ...]) -> list[float]:
    judged = history[_first_round_that_counts(plan) - 1 :]
    return [summary.validation.loss for summary in judged if summary.validation is not None]
