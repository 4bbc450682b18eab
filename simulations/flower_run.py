"""The same hospitals on Flower's simulation engine: in Ray workers on this machine, or on a Ray cluster.

The coordinator's part runs in this process as a Flower ServerApp, and reaches the hospitals through Flower's grid. A
Flower ClientApp in each worker rebuilds from the run folder whichever hospital it is asked for.
"""

from __future__ import annotations

import os

# Read when Flower is imported. Nothing is told to anybody about what runs here.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import (
    CloisterError,
    ConfigError,
    DataError,
    IntegrityError,
    ProtocolError,
    RollbackError,
    TryAgainError,
)
from simulations.federation import Coordinated, Setting
from simulations.network import Carrier, Delivery
from simulations.ray_cluster import RayWish, running_ray
from simulations.rebuilt_sites import RebuiltSites
from simulations.view import View

try:
    from flwr.app import ConfigRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

    # `run_simulation`, the public door to the same function, is deprecated in favour of a command that wants a code
    # bundle and a SuperLink; this is what that command's process calls.
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.telemetry import EventType
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "flwr":
        raise
    INSTALLED = False
else:
    INSTALLED = True

_RECORD = "cloister"
_KIND = "query"
_POLL_SECONDS = 0.005
_DEBUG_HINT = "CLOISTER_DEBUG=1 shows why; its output may quote data, so keep it to yourself"

# What a worker may say in the terms of common.errors; anything else is told as a failure without words.
_ERRORS = {
    kind.__name__: kind
    for kind in (CloisterError, ConfigError, DataError, IntegrityError, ProtocolError, RollbackError, TryAgainError)
}


class FlowerEngine:
    """Hospitals in the worker processes of Flower's simulation engine.

    Guarantees:
        Where each request is served changes no answer (`simulations.rebuilt_sites`), so that what a run gives does not
        depend on the engine. Without an address everything listens on loopback, and for who has this run's token only;
        when `serve` returns or raises, the workers that it started are gone.

    Args:
        wish: Which Ray, and how much of it.

    Raises:
        ConfigError: When Flower or Ray are not installed.
    """

    in_process = False

    def __init__(self, wish: RayWish) -> None:
        if not INSTALLED or not wish.is_installed:
            raise ConfigError(
                "--engine flower needs Flower and Ray, which are not installed",
                hint='pip install "cloister[ray]", or leave --engine out',
            )
        self._wish = wish

    def serve(
        self, setting: Setting, view: View, coordinate: Callable[[Carrier], Coordinated]
    ) -> tuple[Coordinated, float]:
        """As `simulations.federation.Engine.serve`.

        Raises:
            ConfigError: When the Ray cluster has no room for a worker.
            TransportError: When no Ray cluster answers at the address.
            CloisterError: When a worker fails, and as `coordinate`.
        """
        resources = _resources(setting)
        part = _CoordinatorPart(setting, view, coordinate)
        with _silent_flower(), running_ray(self._wish, len(setting.sites), resources):
            try:
                _simulate(part, len(setting.sites), resources)
            finally:
                part.stop()
        return part.result(), part.seconds


def _resources(setting: Setting) -> dict[str, float]:
    """What one worker takes: as many processors as its model uses threads, and the accelerator where it is on one."""
    compute = setting.model.compute
    return {"num_cpus": max(1, compute.threads), "num_gpus": 1.0 if compute.device == "cuda" else 0.0}


def _simulate(part: _CoordinatorPart, sites: int, resources: dict[str, float]) -> None:
    leave = EventType.PYTHON_API_RUN_SIMULATION_LEAVE  # never sent: telemetry is off
    try:
        _run_simulation(
            sites,
            leave,
            client_app=_client_app(),
            server_app=part.app(),
            backend_config={"client_resources": dict(resources)},
        )
    except RuntimeError as error:
        raise CloisterError("Flower's simulation engine failed", hint=_DEBUG_HINT) from error


@contextmanager
def _silent_flower() -> Iterator[None]:
    """Flower's log is for who debugs Flower; what a user must know is told in our own words."""
    log = logging.getLogger("flwr")
    level = log.level
    if os.environ.get("CLOISTER_DEBUG") != "1":
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


# --- the coordinator's part ------------------------------------------------------------------------------------------


class _CoordinatorPart:
    """The coordinator's part as a ServerApp, which Flower runs in a thread of its own; its result is kept here."""

    def __init__(self, setting: Setting, view: View, coordinate: Callable[[Carrier], Coordinated]) -> None:
        self._setting, self._view, self._coordinate = setting, view, coordinate
        self._future: Future[Coordinated] = Future()
        self._stopped = threading.Event()
        self._carrier: _FlowerCarrier | None = None

    def app(self) -> ServerApp:
        app = ServerApp()
        app.main()(self._main)
        return app

    def _main(self, grid: Grid, context: Context) -> None:  # noqa: ARG002 - the names that Flower calls it with
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            self._carrier = _FlowerCarrier(grid, self._setting, self._view, self._stopped)
            self._future.set_result(self._coordinate(self._carrier))
        except Exception as error:  # noqa: BLE001 - raised again in the thread of the caller, by `result`
            self._future.set_exception(error)

    def stop(self) -> None:
        """Return only when nothing of the coordinator's part runs any more: it writes to the run folder."""
        self._stopped.set()
        if not self._future.cancel():
            wait([self._future])

    def result(self) -> Coordinated:
        if self._future.cancelled():
            raise CloisterError("Flower's simulation engine never called the coordinator", hint=_DEBUG_HINT)
        return self._future.result()

    @property
    def seconds(self) -> float:
        """Seconds of training in all workers."""
        return 0.0 if self._carrier is None else self._carrier.seconds


class _FlowerCarrier:
    """A `Carrier` over Flower's grid, to all sites at once.

    Which virtual node of Flower's carries a site's messages means nothing: the message names the site.
    """

    def __init__(self, grid: Grid, setting: Setting, view: View, stopped: threading.Event) -> None:
        self._grid, self._view, self._stopped = grid, view, stopped
        self._folder = str(setting.folder.resolve())
        self.sites: Collection[str] = setting.sites
        self.seconds = 0.0
        self._nodes = dict(zip(setting.sites, self._registered(len(setting.sites)), strict=True))

    def _registered(self, count: int) -> list[int]:
        """Flower's nodes, once all are there: it registers them while this thread begins."""
        while len(found := sorted(self._grid.get_node_ids())) < count:
            self._pause()
        return found

    def _pause(self) -> None:
        if self._stopped.wait(_POLL_SECONDS):
            raise CloisterError("the simulation engine was stopped")

    def carry(self, deliveries: Iterable[Delivery]) -> Iterator[tuple[Delivery, bytes]]:
        """As `simulations.network.Carrier.carry`, answers as they come."""
        waiting: dict[str, deque[Delivery]] = {}
        for delivery in deliveries:
            waiting.setdefault(delivery.site, deque()).append(delivery)
        sent = {self._send(queue[0]): queue for queue in waiting.values()}
        while sent:
            for message in self._grid.pull_messages(list(sent)):
                queue = sent.pop(message.metadata.reply_to_message_id)
                delivery = queue.popleft()
                yield delivery, self._frame(delivery.site, message)
                if queue:
                    sent[self._send(queue[0])] = queue
            self._pause()

    def _send(self, delivery: Delivery) -> str:
        content = ConfigRecord({"folder": self._folder, "site": delivery.site, "frame": delivery.delivered})
        message = Message(RecordDict({_RECORD: content}), self._nodes[delivery.site], _KIND)
        self._view.site_started(delivery.site)
        (identifier,) = self._grid.push_messages([message])
        return str(identifier)

    def _frame(self, site: str, message: Message) -> bytes:
        if message.has_error():
            raise CloisterError(f"the worker process that served {site} failed", hint=_DEBUG_HINT)
        content: Any = message.content[_RECORD]
        if "error" in content:
            raise _ERRORS.get(content["error"], CloisterError)(content["message"], hint=content["hint"])
        self._view.site_finished(site)
        self.seconds += content["seconds"]
        return bytes(content["frame"])


# --- in a worker -----------------------------------------------------------------------------------------------------


def _client_app() -> ClientApp:
    app = ClientApp()
    app.query()(answer_message)
    return app


def answer_message(message: Message, context: Context) -> Message:  # noqa: ARG001 - the names that Flower calls it with
    """The ClientApp: one frame to the site that the message names, one frame back."""
    asked: Any = message.content[_RECORD]
    try:
        answer = _sites_of(asked["folder"]).answer(asked["site"], asked["frame"])
        content = ConfigRecord({"frame": answer.frame, "seconds": answer.seconds})
    except CloisterError as error:
        content = ConfigRecord({"error": type(error).__name__, "message": error.message, "hint": error.hint})
    return Message(RecordDict({_RECORD: content}), reply_to=message)


@functools.lru_cache(maxsize=1)
def _sites_of(folder: str) -> RebuiltSites:
    """One base model and one set of hospitals a worker process, however many requests it serves."""
    return RebuiltSites(Path(folder))
