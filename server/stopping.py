"""Which rounds are judged on the public validation set, which is the best, and when patience runs out."""

from __future__ import annotations

import math

from common.plan import Plan
from server.state import BestModel, RoundSummary


def better(plan: Plan, best: BestModel | None, candidate: BestModel) -> BestModel | None:
    """The best model so far; None while the plan has no patience or no round was judged.

    The lowest loss wins, by however little: `minimum_gain` is about stopping, not about choosing.
    """
    if not plan.stopping.patience_rounds or candidate.round_number < _first_judged_round(plan):
        return best
    return candidate if best is None or candidate.loss < best.loss else best


def patience_ran_out(plan: Plan, history: tuple[RoundSummary, ...]) -> bool:
    """Whether the last `patience_rounds` judged rounds brought no gain of more than `minimum_gain`.

    Edge cases:
        Rounds that changed nothing for lack of sites are not judged. Nor are those that train the head alone, or a run
        could stop before its adapter was ever trained. A slow fall adds up: the gain is against the loss at the last
        gain, not against the round before.
    """
    reference, without_gain = math.inf, 0
    for loss in _judged_losses(plan, history):
        if loss < reference - plan.stopping.minimum_gain:
            reference, without_gain = loss, 0
        else:
            without_gain += 1
    return 0 < plan.stopping.patience_rounds <= without_gain


def _first_judged_round(plan: Plan) -> int:
    return 1 if plan.adapter.method == "head" else plan.adapter.head_rounds + 1


def _judged_losses(plan: Plan, history: tuple[RoundSummary, ...]) -> list[float]:
    judged = history[_first_judged_round(plan) - 1 :]
    return [summary.validation.loss for summary in judged if summary.validation is not None]
