"""`cloister-coordinator start`: the SuperLink and the gateway, kept running until somebody stops them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from common.audit import AuditLog
from common.audit_events import GatewayAccess
from common.errors import CloisterError, ConfigError, DeadlineError, TransportError
from server.config import CoordinatorConfig
from server.control import Control, control_of
from server.enrolment import enrolled
from server.gateway.access import AccessLine
from server.gateway.door import open_listener
from server.gateway.gateway import GatewaySettings, run_gateway
from server.gateway.rules import FLEET_PATHS
from server.home import CoordinatorHome
from server.superlink import LOOPBACK, SuperLink, last_words

_log = structlog.get_logger()

_LOOK_SECONDS = 0.2
_WATCH_SECONDS = 2.0
_RESTART_WINDOW_SECONDS = 600.0


@dataclass(eq=False)
class Service:
    """Runs SuperLink and gateway until `stop` is set.

    Guarantees:
        Hospitals reach the gateway only. Nodes, at the gateway and at the SuperLink, are those of the enrolled sites,
        also of a site that is enrolled or withdrawn while this runs. A SuperLink that ends is started again, a few
        times; when it keeps ending, so does this, with its last words. Each request that reached the gateway is in a
        line of the audit log.

    Args:
        home: The coordinator's home.
        config: Its settings.
        audit: Takes the access lines.
        stop: Set it, from any thread, to end.
        on_ready: Told once hospitals can connect.
        on_sites: Told which enrolled sites are connected, whenever that changes.
    """

    home: CoordinatorHome
    config: CoordinatorConfig
    audit: AuditLog
    stop: threading.Event
    on_ready: Callable[[], None] = lambda: None
    on_sites: Callable[[Mapping[str, bool]], None] = lambda _: None
    _ends: deque[float] = field(default_factory=deque)
    _registered: dict[bytes, int] = field(default_factory=dict)
    _sites: dict[bytes, str] = field(default_factory=dict)
    _enrolled_at: int = -1
    _online: dict[str, bool] = field(default_factory=dict)
    _next_watch: float = 0.0
    _gateway_error: BaseException | None = None

    def run(self) -> None:
        """Serve; returns when `stop` is set.

        Raises:
            ConfigError: When a port is taken, or certificates cannot be used.
            CloisterError: When the SuperLink keeps ending.
        """
        self._refuse_taken()
        superlink = self._start()
        gateway = threading.Thread(target=self._serve_gateway, name="gateway", daemon=True)
        gateway.start()
        try:
            while not self.stop.wait(_LOOK_SECONDS):
                if not gateway.is_alive() and not self.stop.is_set():
                    raise self._gateway_error or CloisterError("the gateway ended by itself")
                if superlink.exit_code is not None:
                    superlink = self._restart(superlink)
                self._register()
                self._watch()
        finally:
            self.stop.set()
            try:
                gateway.join()
            finally:  # also when a second signal comes while the gateway says goodbye
                superlink.stop()

    # --- the SuperLink ---

    def _start(self) -> SuperLink:
        superlink = SuperLink(self.home, self.config.listen.superlink_port)
        try:
            self._wait_until_ready(superlink)
            self._read_registered()
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
        limit = self.config.waiting.superlink_start_seconds
        tries = Retrying(
            retry=retry_if_exception_type(TransportError),
            stop=stop_after_delay(limit),
            wait=wait_fixed(_LOOK_SECONDS / 2),
            reraise=True,
        )
        try:
            tries(self._look_once, superlink)
        except TransportError as error:
            raise DeadlineError(
                f"the SuperLink was not ready after {limit:g} seconds: {error.message}", hint=last_words(self.home)
            ) from None

    def _look_once(self, superlink: SuperLink) -> None:
        if self.stop.is_set():
            return
        if superlink.exit_code is not None:
            raise CloisterError(
                f"the SuperLink ended at its start, with exit code {superlink.exit_code}", hint=last_words(self.home)
            )
        self._control.nodes()

    @cached_property
    def _control(self) -> Control:
        return control_of(self.home, self.config)

    def _read_registered(self) -> None:
        """What its database remembers: it may know sites that were withdrawn while nothing ran here."""
        self._enrolled_at = -1
        if not self.stop.is_set():
            self._registered = {_trimmed(node.public_key): node.node_id for node in self._control.nodes()}

    def _register(self) -> None:
        """Make the SuperLink's nodes those of the enrolled sites, if these have changed since it last worked."""
        changed = self.home.sites.stat().st_mtime_ns
        if changed == self._enrolled_at:
            return
        self._sites = {_trimmed(site.node_key.encode("ascii")): site.name for site in enrolled(self.home)}
        try:
            for key in self._sites.keys() - self._registered.keys():
                self._registered[key] = self._control.register(key)
                _log.info("site may connect", site=self._sites[key])
            for key in self._registered.keys() - self._sites.keys():
                self._control.unregister(self._registered[key])
                del self._registered[key]
                _log.info("site may no longer connect")
            self._enrolled_at = changed
        except TransportError as error:
            # The SuperLink has just ended, or is busy: the next look tries again.
            _log.warning("registering nodes did not work", reason=error.message)

    def _watch(self) -> None:
        """Tell which sites are connected, if that has changed since the last look."""
        now = time.monotonic()
        if now < self._next_watch:
            return
        self._next_watch = now + _WATCH_SECONDS
        try:
            nodes = {_trimmed(node.public_key): node.online for node in self._control.nodes()}
        except TransportError:
            return
        online = {name: nodes.get(key, False) for key, name in sorted(self._sites.items(), key=lambda pair: pair[1])}
        if online != self._online:
            self._online = online
            self.on_sites(online)

    # --- the gateway ---

    def _refuse_taken(self) -> None:
        """Tell of an address that cannot be listened on before anything is started; the gateway listens on it later."""
        try:
            open_listener(self.config.listen.host, self.config.gateway_port).close()
        except TransportError as error:
            raise ConfigError(
                error.message,
                hint="stop the program that holds the port, or set listen.port in coordinator.toml to a free one above "
                "1023; listen.host must be an address of this machine",
            ) from None

    def _serve_gateway(self) -> None:
        listen = self.config.listen
        settings = GatewaySettings(
            host=listen.host,
            port=self.config.gateway_port,
            certificate=self.home.server_certificate,
            key=self.home.server_key,
            upstream=f"{LOOPBACK}:{listen.superlink_port}",
            upstream_ca=self.home.ca_certificate,
            node_keys=lambda: self._sites,
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


def _trimmed(node_key: bytes) -> bytes:
    """A key in PEM in one spelling: the SuperLink's database may add a line end."""
    return node_key.strip()
