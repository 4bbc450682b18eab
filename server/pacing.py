"""How long to wait for the answers to an order: it depends on what was asked, and on how fast the others were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from common.messages import RoundOrder
from common.secagg.messages import MaskedOrder, SessionInvite
from common.study_messages import BaseChunk, BaseQuery
from common.transport import Transport
from common.wire import kind_of
from server.config import WaitingConfig

_TRAINING = (RoundOrder, MaskedOrder, SessionInvite)
"""A node that was started anew loads its base at the first request of a run, which may be an invite."""
_PREPARING = (BaseQuery, BaseChunk)
"""The answer to the last chunk comes when the site has read its records and computed the frozen layers."""


@dataclass(frozen=True)
class Patience:
    """When to stop waiting for answers.

    Guarantees:
        `seconds` at most. Once `enough` answers are there, the rest have as long again as these took, and at least
        `late_seconds`.
    """

    seconds: float
    enough: int
    late_seconds: float

    def deadline(self, started: float, enough_since: float | None) -> float:
        """The moment to stop at, on the clock of `time.monotonic`.

        Args:
            started: When the orders were sent.
            enough_since: When enough answers were there; None while they are not.
        """
        last = started + self.seconds
        if enough_since is None:
            return last
        return min(last, enough_since + max(self.late_seconds, enough_since - started))


class Patient(Protocol):
    """A transport that can be told how long to wait."""

    patience: Patience


class PacedTransport:
    """A `Transport` that sets the waiting time of the network below for each exchange.

    Args:
        inner: What is asked.
        network: The transport at the bottom, which does the waiting.
        waiting: The coordinator's settings.
        enough: Answers after which the others are late.
    """

    def __init__(self, inner: Transport, network: Patient, waiting: WaitingConfig, enough: int) -> None:
        self._inner = inner
        self._network = network
        self._waiting = waiting
        self._enough = enough

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`."""
        self._network.patience = self._patience(orders)
        yield from self._inner.exchange(orders)

    def _patience(self, orders: Mapping[str, bytes]) -> Patience:
        kinds = {kind_of(order) for order in orders.values()}
        if kinds & set(_PREPARING):
            # A late one loses nothing, it is asked again; one that dawdles must not hold up those that fetch the base.
            return Patience(self._waiting.answer_seconds, (len(orders) + 1) // 2, self._waiting.late_seconds)
        seconds = self._waiting.answer_seconds if kinds & set(_TRAINING) else self._waiting.exchange_seconds
        return Patience(seconds, min(self._enough, len(orders)), self._waiting.late_seconds)
