"""One round, one straight line: order, exchange, check, add up, step or stand still."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import IntegrityError
from common.messages import Refusal, RoundOrder, RoundReply
from common.plan import Plan
from common.transport import Transport
from common.wire import decode, encode, frame_bound
from server.aggregation.base import Aggregator, Moments, Vector
from server.running_sum import RunningSum
from server.state import FaultKind, RoundSummary, ServerState

Groups = Mapping[str, slice]


@dataclass(frozen=True, eq=False)
class RoundResult:
    """The next weights and moments, and what the round did."""

    weights: Vector
    moments: Moments
    summary: RoundSummary


def run_round(
    plan: Plan, state: ServerState, sites: Sequence[str], transport: Transport, aggregator: Aggregator, groups: Groups
) -> RoundResult:
    """Run the round after `state.round_number`.

    Guarantees:
        The same state gives the same order, byte for byte, so that a site that answered before a crash gives its stored
        answer again. Each site counts at most once. The result does not depend on the order of answers. No answer,
        whatever its bytes, raises; what is wrong with it is counted.

    Edge cases:
        With fewer survivors than `plan.minimum_sites` weights and moments stay, and `summary.applied` is False.

    Args:
        plan: The plan that the sites hold.
        state: What the last round left.
        sites: Names of the sites.
        transport: How they are reached; its own errors pass through.
        aggregator: The server rule.
        groups: Slices of the trained values, for the norms by group.
    """
    started = time.perf_counter()
    order = _order(plan, state)
    frame = encode(order)
    intake = Intake(order, sites)
    for site, answer in transport.exchange(dict.fromkeys(sites, frame)):
        intake.take(site, answer)
    weights, moments = state.model.weights, state.moments
    applied = intake.survivors >= plan.minimum_sites
    if applied:
        weights, moments = aggregator.apply(weights, intake.total, intake.survivors, moments)
    change = weights - state.model.weights
    summary = RoundSummary(
        round_number=order.round_number,
        survivors=intake.survivors,
        applied=applied,
        refusals=intake.refusals,
        faults=intake.faults,
        update_norm=_norm(change),
        group_norms={name: _norm(change[part]) for name, part in groups.items()},
        validation=None,
        seconds=time.perf_counter() - started,
        bytes_out=len(frame) * len(sites),
        bytes_in=intake.bytes_in,
    )
    return RoundResult(weights, moments, summary)


def _order(plan: Plan, state: ServerState) -> RoundOrder:
    weights = state.model.weights.astype(np.float32)
    return RoundOrder(plan.digest, state.round_number + 1, weights, state.model.basis)


def _norm(change: Vector) -> float:
    return float(np.linalg.norm(change))


class Intake:
    """What comes in during one round: the running sum, who is in it, who refused, and what was wrong.

    Args:
        order: What was asked.
        sites: Who was asked.
    """

    def __init__(self, order: RoundOrder, sites: Sequence[str]) -> None:
        self._order = order
        self._sites = frozenset(sites)
        self._limit_bytes = frame_bound(len(order.weights))
        self._sum = RunningSum(len(order.weights))
        # Digests tell a repeated answer from a different one without keeping any site's update.
        self._counted: dict[str, bytes] = {}
        self._refused: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self.bytes_in = 0

    @property
    def survivors(self) -> int:
        """Sites in the sum."""
        return self._sum.count

    @property
    def total(self) -> Vector:
        """Sum of their updates, shape `[d]`."""
        return self._sum.total

    @property
    def refusals(self) -> dict[str, int]:
        """Sites by refusal code; a site that also replied is a survivor, whichever answer came first."""
        codes = Counter(code for site, code in self._refused.items() if site not in self._counted)
        return dict(sorted(codes.items()))

    @property
    def faults(self) -> dict[str, int]:
        """Ignored answers by kind."""
        return dict(sorted(self._faults.items()))

    def take(self, site: str, answer: bytes) -> None:
        """Check one answer and count it, or count what is wrong with it."""
        self.bytes_in += len(answer)
        fault = self._take(site, answer)
        if fault is not None:
            self._faults[fault] += 1

    def _take(self, site: str, answer: bytes) -> FaultKind | None:
        if site not in self._sites:
            return "unknown-site"
        try:
            message = decode(answer, RoundReply, Refusal, limit_bytes=self._limit_bytes)
        except IntegrityError:
            return "unreadable"
        if message.site != site:
            return "wrong-site"
        if message.plan_digest != self._order.plan_digest:
            return "other-plan"
        if isinstance(message, Refusal):
            return self._take_refusal(message)
        return self._take_reply(message, answer)

    def _take_refusal(self, refusal: Refusal) -> FaultKind | None:
        # Round 0 is what a site writes that could not read which round it was.
        if refusal.round_number not in (0, self._order.round_number):
            return "other-round"
        self._refused.setdefault(refusal.site, refusal.code)
        return None

    def _take_reply(self, reply: RoundReply, answer: bytes) -> FaultKind | None:
        if reply.round_number != self._order.round_number:
            return "other-round"
        if reply.update.shape != self._order.weights.shape:
            return "wrong-shape"
        if not self._sum.can_take(reply.update):
            return "out-of-range"
        return self._count(reply, hashlib.sha256(answer).digest())

    def _count(self, reply: RoundReply, digest: bytes) -> FaultKind | None:
        """Count a good reply once; the same bytes again are a network's habit and no fault."""
        counted = self._counted.setdefault(reply.site, digest)
        if counted != digest:
            return "conflicting-reply"
        if len(self._counted) > self._sum.count:
            self._sum.add(reply.update)
        return None
