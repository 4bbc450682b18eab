"""The node's loop: connect, poll, answer, and come back by itself when the coordinator was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import structlog

from client.config import NetworkConfig
from client.status import StatusBoard
from common.errors import AccessError, RollbackError, TransportError

_log = structlog.get_logger()

_GROWTH = 1.6
_FIRST_RECONNECT_SECONDS = 0.2


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
        """Answer a message."""

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
        coordinator is away it tries again, with growing pauses, for as long as it takes, and says so once.

    Edge cases:
        A coordinator that shows another certificate, or does not know this node, ends the first attempt with an error;
        after a first connection it is tried again, since a SuperLink that restarts knows its nodes a moment later.

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
    started, connected_before, pause = time.monotonic(), False, _FIRST_RECONNECT_SECONDS
    while True:
        link = open_link()
        try:
            link.connect()
            connected_before, pause = True, _FIRST_RECONNECT_SECONDS
            _log.info("connected")
            with _heartbeats(link, heartbeat_seconds):
                _answer_all(site, link, network, board)
        except TransportError as error:
            if not connected_before:
                _give_up(error, time.monotonic() - started, patience_seconds)
            board.show("connecting", f"{error.message}; trying again")
            _log.warning("connection lost", reason=error.message, hint=error.hint, next_try_seconds=round(pause, 1))
        finally:
            link.close()
        time.sleep(pause)
        pause = min(2 * pause, network.most_reconnect_seconds)


def _give_up(error: TransportError, waited: float, patience_seconds: float | None) -> None:
    """End where trying again cannot help, or where nobody wants to wait any longer."""
    if isinstance(error, AccessError) or (patience_seconds is not None and waited >= patience_seconds):
        raise error


def _answer_all(site: Answering, link: Link, network: NetworkConfig, board: StatusBoard) -> None:
    """Answer message after message; ends by an exception only."""
    pause = network.least_poll_seconds
    board.show("waiting", "connected")
    while True:
        delivery = link.receive()
        if delivery is None:
            time.sleep(pause)
            pause = min(pause * _GROWTH, network.most_poll_seconds)
            continue
        pause = network.least_poll_seconds
        answer = site.answer(delivery.envelope)
        if answer is not None:
            link.reply(delivery, answer)
        if site.fatal is not None:
            raise site.fatal
        board.show("waiting", "connected")


@contextmanager
def _heartbeats(link: Link, seconds: float) -> Iterator[None]:
    """Signs of life from a thread of their own: an answer may take minutes."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(seconds):
            try:
                link.heartbeat()
            except TransportError as error:
                _log.info("no answer to a sign of life", reason=error.message)

    thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
