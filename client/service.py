"""The node's loop: connect, poll, answer, and come back by itself when the coordinator was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from client.config import NetworkConfig
from client.status import StatusBoard
from common.errors import AccessError, ProtocolError, RollbackError, TransportError, TryAgainError

_log = structlog.get_logger()

_GROWTH = 1.6
_FIRST_RECONNECT_SECONDS = 0.2
_SILENT_SECONDS = 300.0
"""A coordinator may be away for a night: the same reason is logged so often at most."""


class Delivery(Protocol):
    """A message that came in."""

    @property
    def envelope(self) -> bytes:
        """Its bytes."""
        ...


class Link(Protocol):
    """A node's calls to the coordinator's port; `client.app.FleetLink`."""

    def connect(self) -> None:
        """Say hello."""

    def heartbeat(self) -> None:
        """Say that the node is still there, from another thread."""

    def receive(self) -> Any:  # noqa: ANN401 - a `Delivery`, which only the link itself reads further
        """The next message, or None."""

    def reply(self, delivery: Any, envelope: bytes) -> None:  # noqa: ANN401 - as above
        """Answer a message; a ProtocolError says that the answer is not wanted any more."""

    def close(self) -> None:
        """Say goodbye."""


class Answering(Protocol):
    """What answers; `client.site.Site`."""

    @property
    def fatal(self) -> RollbackError | None:
        """Why the node must stop, once what was answered is sent."""
        ...

    def answer(self, request: bytes) -> bytes | None:
        """The sealed answer to a sealed request."""
        ...


def serve(
    site: Answering,
    open_link: Callable[[], Link],
    network: NetworkConfig,
    board: StatusBoard,
    *,
    heartbeat_seconds: float,
    patience_seconds: float | None = None,
) -> None:
    """Answer the coordinator until somebody interrupts.

    Guarantees:
        Only outbound calls, to one port. Polls quickly after a message and ever more slowly without one. When the
        coordinator is away it tries again, with growing pauses, for as long as it takes; it warns once, and again where
        the reason changes, and says every five minutes that it still tries. The pauses shrink again only when a call
        for messages was answered, not when a connection merely came about; only then it is called connected.

    Edge cases:
        A coordinator that shows another certificate, or does not know this node, ends the first attempt with an error;
        after a first connection it is tried again, since a SuperLink that restarts knows its nodes a moment later.
        A message that is none of ours is passed over. An answer that is not taken any more, because its run is over or
        the connection is gone, is left: it is on disk, and the coordinator asks again. A SuperLink that has forgotten
        the node says so at a sign of life, and is connected to anew.

    Args:
        site: What answers.
        open_link: A new link for each connection.
        network: Pauses.
        board: Where the state is shown.
        heartbeat_seconds: Pause between two signs of life.
        patience_seconds: How long the first connection may take; None for as long as it takes.

    Raises:
        AccessError: When the first connection is refused.
        TransportError: When it did not come about within `patience_seconds`.
        RollbackError: When an older copy of this site's files was found.
        IntegrityError, OSError: As `client.site.Site.answer`.
    """
    visit = _Visit(site, network, board, heartbeat_seconds)
    started = time.monotonic()
    while True:
        link = open_link()
        try:
            visit.pay(link)
        except TransportError as error:
            if not visit.connected_before:
                _give_up(error, time.monotonic() - started, patience_seconds)
            visit.lost(error)
        finally:
            link.close()
        time.sleep(visit.next_pause())


def _give_up(error: TransportError, waited: float, patience_seconds: float | None) -> None:
    """End where trying again cannot help, or where nobody wants to wait any longer."""
    if isinstance(error, AccessError) or (patience_seconds is not None and waited >= patience_seconds):
        raise error


@dataclass(eq=False)
class _Visit:
    """Connections, one after the other, and what is remembered from one to the next."""

    site: Answering
    network: NetworkConfig
    board: StatusBoard
    heartbeat_seconds: float
    connected_before: bool = False
    _tries: int = 0
    _pause: float = field(default=_FIRST_RECONNECT_SECONDS)
    _heard: bool = False
    _told: str = ""
    _told_at: float = 0.0

    def pay(self, link: Link) -> None:
        """Connect, and answer message after message; ends by an exception only."""
        link.connect()
        self.connected_before = True
        with _heartbeats(link, self.heartbeat_seconds) as pulse:
            self._answer_all(link, pulse)

    def lost(self, error: TransportError) -> None:
        """Show why there is no connection; log what is new about that, and seldom that there is nothing new."""
        self.board.show("connecting", f"{error.message}; trying again")
        self._heard = False
        if error.message != self._told:
            _log.warning("connection lost", reason=error.message, hint=error.hint)
        elif time.monotonic() - self._told_at >= _SILENT_SECONDS:
            _log.info("still no connection", reason=error.message, tries=self._tries + 1)
        else:
            return
        self._told, self._told_at = error.message, time.monotonic()

    def next_pause(self) -> float:
        """Seconds to the next try; they grow."""
        pause = self._pause
        self._tries += 1
        self._pause = min(2 * pause, self.network.most_reconnect_seconds)
        return pause

    def _answer_all(self, link: Link, pulse: _Pulse) -> None:
        least, most = self.network.least_poll_seconds, self.network.most_poll_seconds
        pause = least
        self.board.show("waiting", "connected")
        while True:
            delivery = _receive(link)
            self._answered()
            if delivery is not None:
                self._answer(link, delivery)
                # The coordinator has yet to hear the answer: a look at once would find nothing, and cost it time.
                pause = least
                time.sleep(least)
                continue
            pulse.check()
            time.sleep(pause)
            pause = min(pause * _GROWTH, most)

    def _answered(self) -> None:
        """A call for messages was answered: whatever was wrong is over."""
        if not self._heard:
            _log.info("connected")
        self._heard, self._told = True, ""
        self._tries, self._pause = 0, _FIRST_RECONNECT_SECONDS

    def _answer(self, link: Link, delivery: Delivery) -> None:
        try:
            answer = self.site.answer(delivery.envelope)
        except TryAgainError as error:
            # Another command holds a book for long. To a node that comes anew the coordinator sends its order again.
            raise TransportError(f"a message is not answered: {error.message}", error.hint) from None
        lost = None if answer is None else _reply(link, delivery, answer)
        if self.site.fatal is not None:
            raise self.site.fatal
        if lost is not None:
            raise lost
        self.board.show("waiting", "connected")


def _receive(link: Link) -> Delivery | None:
    """The next message; None where there is none, or one that is not ours."""
    try:
        message: Delivery | None = link.receive()
    except ProtocolError as error:
        _log.warning("a message is passed over", reason=error.message)
        return None
    return message


def _reply(link: Link, delivery: Delivery, answer: bytes) -> TransportError | None:
    """Send an answer; gives the error of a connection that was lost over it."""
    try:
        link.reply(delivery, answer)
    except ProtocolError as error:
        _log.warning("an answer was not taken", reason=error.message)
    except TransportError as error:
        return error
    return None


@dataclass(eq=False)
class _Pulse:
    """What the signs of life have met."""

    failure: TransportError | None = None

    def check(self) -> None:
        """Raise what the last sign of life met, if it was not heard."""
        if self.failure is not None:
            raise self.failure


@contextmanager
def _heartbeats(link: Link, seconds: float) -> Iterator[_Pulse]:
    """Signs of life from a thread of their own: an answer may take minutes."""
    done, pulse = threading.Event(), _Pulse()

    def beat() -> None:
        while not done.wait(seconds):
            try:
                link.heartbeat()
                pulse.failure = None
            except TransportError as error:
                pulse.failure = error
            except RuntimeError:
                # The connections were closed under a call; whoever waited for it is gone.
                if not done.is_set():
                    raise

    thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield pulse
    finally:
        done.set()
