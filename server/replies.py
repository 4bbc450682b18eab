"""One exchange: every site is asked once, and its first good answer counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
        counted: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        for site, data in self._transport.exchange(requests):
            self.bytes_in += len(data)
            answer = self._read(data, kind, limit_bytes) if site in requests else "unknown-site"
            fault = self._fault_of(site, answer, fault_of)
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

    def _read(self, data: bytes, kind: type[Answer], limit_bytes: int) -> Answer | Refusal | FaultKind:
        try:
            return cast(Answer | Refusal, decode(data, cast(Any, kind), Refusal, limit_bytes=limit_bytes))
        except IntegrityError:
            return "unreadable"

    def _fault_of(
        self, site: str, answer: Answer | Refusal | FaultKind, fault_of: Callable[[Answer], FaultKind | None]
    ) -> FaultKind | None:
        if isinstance(answer, str):
            return answer
        if answer.site != site:
            return "wrong-site"
        if answer.plan_digest != self._plan_digest:
            return "other-plan"
        if isinstance(answer, Refusal):
            # Round 0 is what a site writes where a request names no round, or could not be read.
            return None if answer.round_number in (0, self._round_number) else "other-round"
        return fault_of(answer)
