"""`cloister-coordinator start`: the SuperLink and the gateway, kept running until somebody stops them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from common.audit import AuditLog
from common.audit_events import GatewayAccess
from common.errors import CloisterError, DeadlineError, TransportError
from common.file_lock import locked
from common.flower import Channel
from common.private_files import PRIVATE_FILE
from server.config import CoordinatorConfig
from server.control import Control
from server.enrolment import enrolled
from server.gateway import GatewaySettings, run_gateway
from server.gateway_access import AccessLine
from server.gateway_rules import FLEET_PATHS
from server.home import CoordinatorHome
from server.superlink import LOOPBACK, SuperLink, last_words

_log = structlog.get_logger()

_LOOK_SECONDS = 0.2
_RESTART_WINDOW_SECONDS = 600.0


@contextmanager
def alone(home: CoordinatorHome) -> Iterator[None]:
    """Hold the lock of the one service that may run in a home, and say in it which process that is.

    Raises:
        TryAgainError: When another process holds it.
    """
    handle = os.open(home.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with locked(handle, 0.0):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
            yield
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def control_of(home: CoordinatorHome, config: CoordinatorConfig, timeout_seconds: float = 10.0) -> Control:
    """The SuperLink's Control API, on loopback."""
    authority = home.ca_certificate.read_text(encoding="ascii")
    address = f"{LOOPBACK}:{config.listen.superlink_port}"
    return Control(Channel(address, authority, "cli", proxies=False, timeout_seconds=timeout_seconds))


@dataclass(eq=False)
class Service:
    """Runs SuperLink and gateway until `stop` is set.

    Guarantees:
        Hospitals reach the gateway only. Nodes are those of the enrolled sites, also of a site that is enrolled or
        withdrawn while this runs. A SuperLink that ends is started again, a few times; when it keeps ending, so does
        this, with its last words. Each request that reached the gateway is in a line of the audit log.

    Args:
        home: The coordinator's home.
        config: Its settings.
        audit: Takes the access lines.
        stop: Set it, from any thread, to end.
        on_ready: Told once hospitals can connect.
    """

    home: CoordinatorHome
    config: CoordinatorConfig
    audit: AuditLog
    stop: threading.Event
    on_ready: Callable[[], None] = lambda: None
    _ends: deque[float] = field(default_factory=deque)
    _registered: dict[str, int] = field(default_factory=dict)
    _gateway_error: BaseException | None = None

    def run(self) -> None:
        """Serve; returns when `stop` is set.

        Raises:
            ConfigError: When a port is taken, or certificates cannot be used.
            CloisterError: When the SuperLink keeps ending.
        """
        superlink = self._start()
        gateway = threading.Thread(target=self._serve_gateway, name="gateway", daemon=True)
        gateway.start()
        try:
            while not self.stop.wait(_LOOK_SECONDS):
                if self._gateway_error is not None:
                    raise self._gateway_error
                if superlink.exit_code is not None:
                    superlink = self._restart(superlink)
                self._register()
        finally:
            self.stop.set()
            gateway.join()
            superlink.stop()

    # --- the SuperLink ---

    def _start(self) -> SuperLink:
        superlink = SuperLink(self.home, self.config.listen.superlink_port)
        try:
            self._wait_until_ready(superlink)
            self._registered.clear()
            self._register()
        except BaseException:
            superlink.stop()
            raise
        _log.info("superlink ready", pid=superlink.pid)
        return superlink

    def _restart(self, ended: SuperLink) -> SuperLink:
        ended.stop()
        now = time.monotonic()
        self._ends.append(now)
        while self._ends[0] < now - _RESTART_WINDOW_SECONDS:
            self._ends.popleft()
        if len(self._ends) > self.config.waiting.superlink_restarts:
            raise CloisterError(
                f"the SuperLink ended {len(self._ends)} times within ten minutes", hint=last_words(self.home)
            )
        _log.warning("superlink ended, starting it again", exit_code=ended.exit_code)
        return self._start()

    def _wait_until_ready(self, superlink: SuperLink) -> None:
        control = control_of(self.home, self.config)
        limit = self.config.waiting.superlink_start_seconds
        tries = Retrying(
            retry=retry_if_exception_type(TransportError),
            stop=stop_after_delay(limit),
            wait=wait_fixed(_LOOK_SECONDS / 2),
            reraise=True,
        )
        try:
            tries(self._look_once, control, superlink)
        except TransportError as error:
            raise DeadlineError(
                f"the SuperLink was not ready after {limit:g} seconds: {error.message}", hint=last_words(self.home)
            ) from None

    def _look_once(self, control: Control, superlink: SuperLink) -> None:
        if superlink.exit_code is not None:
            raise CloisterError(
                f"the SuperLink ended at its start, with exit code {superlink.exit_code}", hint=last_words(self.home)
            )
        control.nodes()

    def _register(self) -> None:
        """Make the SuperLink's nodes those of the enrolled sites."""
        sites = {site.node_key: site.name for site in enrolled(self.home)}
        if sites.keys() == self._registered.keys():
            return
        control = control_of(self.home, self.config)
        try:
            for key in sites.keys() - self._registered.keys():
                self._registered[key] = control.register(key.encode("ascii"))
                _log.info("site may connect", site=sites[key])
            for key in self._registered.keys() - sites.keys():
                control.unregister(self._registered.pop(key))
                _log.info("site may no longer connect")
        except TransportError as error:
            # The SuperLink has just ended, or is busy: the next look tries again.
            _log.warning("registering nodes did not work", reason=error.message)

    # --- the gateway ---

    def _serve_gateway(self) -> None:
        listen = self.config.listen
        settings = GatewaySettings(
            host=listen.host,
            port=self.config.gateway_port,
            certificate=self.home.server_certificate,
            key=self.home.server_key,
            upstream=f"{LOOPBACK}:{listen.superlink_port}",
            upstream_ca=self.home.ca_certificate,
            limits=self.config.gateway,
        )
        try:
            run_gateway(settings, self._note_access, self.stop, lambda *_: self.on_ready())
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._gateway_error = error

    def _note_access(self, line: AccessLine) -> None:
        self.audit.record(
            GatewayAccess(
                remote=line.address,
                path=line.path if line.path in FLEET_PATHS else "other",
                status=line.status,
                requests=line.requests,
                bytes_in=line.bytes_in,
                bytes_out=line.bytes_out,
            )
        )
