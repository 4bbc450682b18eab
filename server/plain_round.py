"""A round whose answers are read one by one: each site's own update, private by itself and not masked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from common.messages import Refusal, RoundOrder, RoundReply
from common.transport import Transport
from common.wire import encode, frame_bound
from server.aggregation.base import Vector
from server.gather import Gathered
from server.replies import Scope
from server.running_sum import RunningSum
from server.state import FaultKind


class PlainGatherer:
    """Asks the sites for their updates and adds them up.

    Args:
        plan_digest: The plan that the sites hold.
        sites: Names of the sites.
        transport: How they are reached; its own errors pass through.
    """

    def __init__(self, plan_digest: str, sites: Sequence[str], transport: Transport) -> None:
        self._plan_digest, self._sites, self._transport = plan_digest, sites, transport

    def gather(self, round_number: int, weights: npt.NDArray[np.float32], basis: npt.NDArray[np.float32]) -> Gathered:
        """As `server.gather.Gatherer`."""
        order = RoundOrder(self._plan_digest, round_number, weights, basis)
        frame = encode(order)
        intake = Intake(order, self._sites)
        for site, answer in self._transport.exchange(dict.fromkeys(self._sites, frame)):
            intake.take(site, answer)
        return Gathered(
            total=intake.total,
            survivors=intake.survivors,
            refusals=intake.refusals,
            faults=intake.faults,
            bytes_out=len(frame) * len(self._sites),
            bytes_in=intake.bytes_in,
        )


class Intake:
    """What comes in during one round: the running sum, who is in it, who refused, and what was wrong.

    Args:
        order: What was asked.
        sites: Who was asked.
    """

    def __init__(self, order: RoundOrder, sites: Sequence[str]) -> None:
        self._order = order
        self._scope = Scope(frozenset(sites), order.plan_digest, order.round_number)
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

    def _take(self, site: str, data: bytes) -> FaultKind | None:
        answer = self._scope.read(site, data, RoundReply, self._limit_bytes)
        if isinstance(answer, str):
            return answer
        if isinstance(answer, Refusal):
            self._refused.setdefault(answer.site, answer.code)
            return None
        return self._take_reply(answer, data)

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
