"""The one place that turns a plan's tables into the rule of a round."""

from __future__ import annotations

from collections.abc import Mapping

from common.plan import Plan, ServerConfig
from common.schedule import rate_factor
from server.aggregation.base import Aggregator
from server.aggregation.fedavg import FedAvg
from server.aggregation.fedopt import FedOpt
from server.aggregation.union_step import Rates, UnionAdam, UnionSgd


def build_aggregator(plan: Plan, groups: Mapping[str, slice], round_number: int) -> Aggregator:
    """The rule that the plan names, with the constants that the plan gives it in this round.

    Args:
        plan: The finished plan.
        groups: Slices of the trained values by name (`adapter`, `head`); used in mode distributed.
        round_number: From 1; a round is a step of the schedule there, also after a round that was lost.
    """
    if plan.mode == "per-site":
        return _over_updates(plan.server)
    rates = _rates(plan, groups, round_number)
    if plan.optimizer.rule == "adam":
        return UnionAdam(rates, plan.optimizer.momentum, plan.optimizer.second_moment)
    return UnionSgd(rates, plan.optimizer.momentum)


def _over_updates(server: ServerConfig) -> Aggregator:
    if server.optimizer == "fedavg":
        return FedAvg(server.learning_rate, server.momentum)
    return FedOpt(
        rule=server.optimizer,
        learning_rate=server.learning_rate,
        momentum=server.momentum,
        second_moment=server.second_moment,
        adaptivity=server.adaptivity,
    )


def _rates(plan: Plan, groups: Mapping[str, slice], round_number: int) -> Rates:
    """What the round trains: the head with its own rate, and the adapter once its first round has come."""
    optimizer = plan.optimizer
    full = {"adapter": optimizer.learning_rate, "head": optimizer.head_learning_rate or optimizer.learning_rate}
    factor = rate_factor(optimizer, round_number - 1, plan.steps)
    waiting = {"adapter"} if round_number <= plan.adapter.head_rounds else set()
    return tuple((part, full[name] * factor) for name, part in groups.items() if name not in waiting)
