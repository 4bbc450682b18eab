"""One exchange: every site is asked once, and its first good answer counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from common.errors import IntegrityError
from common.messages import Refusal
from common.transport import Transport
from common.wire import decode
from server.state import FaultKind


class SiteAnswer(Protocol):
    """What every answer of a site carries."""

    @property
    def plan_digest(self) -> str:
        """The plan it belongs to."""
        ...

    @property
    def site(self) -> str:
        """In whose name it comes."""
        ...


Answer = TypeVar("Answer", bound=SiteAnswer)


@dataclass(frozen=True)
class Scope:
    """What an answer must belong to.

    Args:
        sites: Who was asked.
        plan_digest: The plan that the answer is about.
        round_number: The round that it is about.
    """

    sites: Collection[str]
    plan_digest: str
    round_number: int

    def read(self, site: str, data: bytes, kind: type[Answer], limit_bytes: int) -> Answer | Refusal | FaultKind:
        """A readable answer of this kind by that site about this plan, or a refusal of this round, or what is wrong."""
        if site not in self.sites:
            return "unknown-site"
        try:
            answer = cast(Answer | Refusal, decode(data, cast(Any, kind), Refusal, limit_bytes=limit_bytes))
        except IntegrityError:
            return "unreadable"
        if answer.site != site:
            return "wrong-site"
        if answer.plan_digest != self.plan_digest:
            return "other-plan"
        # Round 0 is what a site writes where a request names no round, or could not be read.
        if isinstance(answer, Refusal) and answer.round_number not in (0, self.round_number):
            return "other-round"
        return answer


class Exchanges:
    """The exchanges of one round: what went over the network, who refused, and what was wrong with the rest.

    Args:
        transport: How sites are reached; its own errors pass through.
        plan_digest: The plan that everything belongs to.
        round_number: The round that everything is about.
    """

    def __init__(self, transport: Transport, plan_digest: str, round_number: int) -> None:
        self._transport = transport
        self._plan_digest = plan_digest
        self._round_number = round_number
        self._refused: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self.bytes_out = 0
        self.bytes_in = 0

    @property
    def refusals(self) -> dict[str, int]:
        """Sites by the code of their first refusal; one that also did what was asked in that exchange is none."""
        return dict(sorted(Counter(self._refused.values()).items()))

    @property
    def faults(self) -> dict[str, int]:
        """Ignored answers by kind."""
        return dict(sorted(self._faults.items()))

    def ask(
        self,
        requests: Mapping[str, bytes],
        kind: type[Answer],
        fault_of: Callable[[Answer], FaultKind | None],
        *,
        limit_bytes: int,
    ) -> Iterator[Answer]:
        """Send each site its request, and yield each site's first good answer as it comes.

        Guarantees:
            A site counts once; the same bytes again are a network's habit and no fault, other bytes are one. No answer,
            whatever its bytes, raises. The exchange is exhausted when the iterator ends.

        Args:
            requests: Site name to frame.
            kind: What is expected.
            fault_of: What is wrong with a readable answer of the right plan and site; None for nothing.
            limit_bytes: Longest answer that is read.
        """
        self.bytes_out += sum(len(request) for request in requests.values())
        scope = Scope(requests.keys(), self._plan_digest, self._round_number)
        counted: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        for site, data in self._transport.exchange(requests):
            self.bytes_in += len(data)
            answer = scope.read(site, data, kind, limit_bytes)
            fault = _fault(answer, fault_of)
            digest = hashlib.sha256(data).digest()
            if fault is None and counted.get(site, digest) != digest:
                fault = "conflicting-reply"
            if fault is not None:
                self._faults[fault] += 1
            elif isinstance(answer, Refusal):
                refused.setdefault(site, answer.code)
            elif not isinstance(answer, str) and site not in counted:
                counted[site] = digest
                yield answer
        # A kept refusal wins over what this exchange adds.
        self._refused = {site: code for site, code in refused.items() if site not in counted} | self._refused


def _fault(answer: Answer | Refusal | FaultKind, fault_of: Callable[[Answer], FaultKind | None]) -> FaultKind | None:
    if isinstance(answer, str):
        return answer
    return None if isinstance(answer, Refusal) else fault_of(answer)
