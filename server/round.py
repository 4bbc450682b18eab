"""One round, one straight line: gather, step or stand still, and say what happened."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.plan import Plan
from server.aggregation.base import Aggregator, Moments, Vector
from server.gather import Gatherer
from server.state import RoundSummary, ServerState

Groups = Mapping[str, slice]


@dataclass(frozen=True, eq=False)
class RoundResult:
    """The next weights and moments, and what the round did."""

    weights: Vector
    moments: Moments
    summary: RoundSummary


def run_round(
    plan: Plan, state: ServerState, gatherer: Gatherer, aggregator: Aggregator, groups: Groups
) -> RoundResult:
    """Run the round after `state.round_number`.

    Guarantees:
        The same state gives the same order, byte for byte, so that a site that answered before a crash gives its stored
        answer again. The result does not depend on the order of answers. No answer, whatever its bytes, raises; what is
        wrong with it is counted.

    Edge cases:
        With fewer survivors than `plan.minimum_sites`, or when secure aggregation gave up, weights and moments stay,
        and `summary.applied` is False.

    Args:
        plan: The plan that the sites hold.
        state: What the last round left.
        gatherer: How the round's sum is brought in; errors of its transport pass through.
        aggregator: The server rule.
        groups: Slices of the trained values, for the norms by group.
    """
    started = time.perf_counter()
    number = state.round_number + 1
    gathered = gatherer.gather(number, state.model.weights.astype(np.float32), state.model.basis)
    weights, moments = state.model.weights, state.moments
    applied = gathered.total is not None and gathered.survivors >= plan.minimum_sites
    if gathered.total is not None and applied:
        weights, moments = aggregator.apply(weights, gathered.total, gathered.survivors, moments)
    change = weights - state.model.weights
    summary = RoundSummary(
        round_number=number,
        survivors=gathered.survivors,
        applied=applied,
        refusals=gathered.refusals,
        faults=gathered.faults,
        update_norm=_norm(change),
        group_norms={name: _norm(change[part]) for name, part in groups.items()},
        validation=None,
        seconds=time.perf_counter() - started,
        bytes_out=gathered.bytes_out,
        bytes_in=gathered.bytes_in,
        abort=gathered.abort,
    )
    return RoundResult(weights, moments, summary)


def _norm(change: Vector) -> float:
    return float(np.linalg.norm(change))
