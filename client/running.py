"""One node from `start` to `stop`: opened, served, closed for a pause, opened anew."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal

import structlog

from client.config import NetworkConfig
from client.enrolment import Pinned
from client.home import SiteHome
from client.interrupts import Interrupts, PauseRequestedError, StopRequestedError
from client.node_process import running_node
from client.opening import OpenSite, open_site
from client.service import Link, serve
from client.site_audit import note
from client.status import StatusBoard
from common.audit_events import Started, Stopped
from common.errors import CloisterError, TryAgainError
from common.file_lock import alone

_log = structlog.get_logger()

MakeLink = Callable[[SiteHome, Pinned, NetworkConfig], Link]
"""A link to the pinned coordinator; `client.link.open_link`."""

Ending = Literal["signal", "failed"]

_LOOK_SECONDS = 0.1


@dataclass(eq=False, repr=False)
class NodeRun:
    """A node in this process.

    Guarantees:
        One node a home. A stop ends it in order within seconds, whatever it is doing; a pause closes every file and
        connection, and its end opens them anew. That it began and ended is in the audit log.

    Args:
        home: Whose node.
        make_link: Opens a connection.
        heartbeat_seconds: Pause between two signs of life.
        patience_seconds: How long the first connection may take; None for as long as it takes.
    """

    home: SiteHome
    make_link: MakeLink
    heartbeat_seconds: float = 30.0
    patience_seconds: float | None = None
    _board: StatusBoard = field(init=False)
    _began: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._board = StatusBoard(self.home.status)

    def run(self) -> None:
        """Answer the coordinator until somebody stops the node; must be called in the main thread.

        Raises:
            TryAgainError: When a node runs in this home already.
            CloisterError, OSError: As `client.opening.open_site` and `client.service.serve`.
        """
        with only_node(self.home):
            try:
                self._run()
            except StopRequestedError:
                self._board.show("stopped", "asked to stop")
                self._note_end("signal", 0)
            except CloisterError as error:
                self._board.show("failed", error.message)
                self._note_end("failed", error.exit_code)
                raise
            except Exception as error:
                self._board.show("failed", f"unexpected: {type(error).__name__}")
                self._note_end("failed", 1)
                raise

    def _run(self) -> None:
        # The outer pair of handlers covers the moments in which the inner one, which also minds pauses, is not there.
        outer, inner = Interrupts(None), Interrupts(self.home.paused)
        with outer.raised():
            while True:
                try:
                    self._wait_while_paused()
                    with inner.raised():
                        self._serve()
                except PauseRequestedError:
                    inner.settle()
                    outer.settle()

    def _wait_while_paused(self) -> None:
        if not self.home.paused.exists():
            return
        self._board.show("paused", "by a person here")
        _log.info("paused", hint="`cloister-site resume` goes on")
        while self.home.paused.exists():
            time.sleep(_LOOK_SECONDS)
        _log.info("resumed")

    def _serve(self) -> None:
        self._board.show("connecting", "opening the site's files")
        with open_site(self.home, self._board) as opened:
            if not self._began:
                opened.audit.record(Started(part="site", version=version("cloister")))
                self._began = True
            self._answer(opened)

    def _answer(self, opened: OpenSite) -> None:
        invitation, network = opened.pinned.invitation, opened.config.network
        _log.info("connecting", site=opened.config.name, coordinator=invitation.address)
        self._board.show("connecting", f"to {invitation.address}")
        serve(
            opened.site,
            lambda: self.make_link(self.home, opened.pinned, network),
            network,
            self._board,
            heartbeat_seconds=self.heartbeat_seconds,
            patience_seconds=self.patience_seconds,
        )

    def _note_end(self, reason: Ending, exit_code: int) -> None:
        """Write the end down, in a log that is opened anew: the old one may have been interrupted in an entry."""
        if not self._began:
            return
        try:
            note(self.home, Stopped(part="site", reason=reason, exit_code=exit_code))
        except (CloisterError, OSError) as error:
            _log.error("the end is not in the audit log", reason=type(error).__name__)


@contextlib.contextmanager
def only_node(home: SiteHome) -> Iterator[None]:
    """Be the one node of a home.

    Raises:
        TryAgainError: When there is another.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(home.lock))
        except TryAgainError:
            process = running_node(home)
            rule = f"a node runs in {home.path} already" + (f", as process {process}" if process else "")
            raise TryAgainError(rule, hint="`cloister-site status` shows it; `cloister-site stop` ends it") from None
        yield
