"""A Ray for one run: started on this machine and ended again, or a cluster that is there already."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from common.errors import CloisterError, ConfigError, TransportError

# Ray reads its settings when it is imported, so that it is imported where it is started.
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # tells its makers nothing
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers run this very Python and no other
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # and spares us a warning
}
# Named after the systems where it is the default: the node's own address is loopback, and nothing listens elsewhere.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_IN_WORKERS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL + 1}


@dataclass(frozen=True)
class RayWish:
    """Which Ray a run wants.

    Args:
        address: HOST:PORT of a cluster's head, or `auto` for the one that this machine belongs to; None starts one on
            this machine for this run.
        workers: Worker processes on this machine; None means one for each hospital, as far as processors go.
    """

    address: str | None = None
    workers: int | None = None

    @property
    def is_installed(self) -> bool:
        """Whether there is a Ray to start."""
        return importlib.util.find_spec("ray") is not None

    def workers_for(self, sites: int, resources: Mapping[str, float]) -> int:
        """Worker processes on this machine."""
        return self.workers or max(1, min(sites, int((os.cpu_count() or 1) / resources["num_cpus"])))


@contextmanager
def running_ray(wish: RayWish, sites: int, resources: Mapping[str, float]) -> Iterator[None]:
    """A Ray with room for the workers while the block runs; what was started for it is ended with it.

    Args:
        wish: Which Ray.
        sites: How many hospitals there are.
        resources: What one worker takes, in Ray's words.

    Raises:
        TransportError: When no cluster answers at the address.
        ConfigError: When it has no room for one worker.
    """
    _set_environment(here=wish.address is None)
    # A path short enough for Ray's sockets, whose names may have 107 characters in all.
    with tempfile.TemporaryDirectory(prefix="cloister-ray-", ignore_cleanup_errors=True) as folder:
        import ray  # noqa: PLC0415 - see above

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if wish.address is None:
                    _start_here(ray, folder, wish.workers_for(sites, resources), resources)
                else:
                    _join(ray, wish.address)
            _check_room(ray, resources)
            with _ended_by_sigterm():
                yield
        finally:
            ray.shutdown()


def _set_environment(*, here: bool) -> None:
    os.environ.update(_ALWAYS)
    if not here:
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # an address that is wrong is so after half a minute
    else:
        # Every user of this machine reaches loopback, and without a token Ray would run their code as this user. Ray
        # keeps the first token that a process had.
        os.environ.update(_LOOPBACK, RAY_AUTH_MODE="token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _start_here(ray: Any, folder: str, workers: int, resources: Mapping[str, float]) -> None:  # noqa: ANN401 - a module
    try:
        ray.init(
            address="local",  # not the cluster that RAY_ADDRESS may name
            num_cpus=int(workers * resources["num_cpus"]),
            include_dashboard=False,
            runtime_env=_workers_environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
            _temp_dir=folder,
            **_QUIET,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CloisterError(
            f"Ray could not be started on this machine ({type(error).__name__})",
            hint="CLOISTER_DEBUG=1 shows why; the engine in-process needs no Ray",
        ) from error


def _join(ray: Any, address: str) -> None:  # noqa: ANN401 - a module
    try:
        with _deaf_terminal():
            ray.init(address=address, runtime_env=_workers_environment(), **_QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TransportError(
            f"no Ray cluster answers at {address} ({type(error).__name__})",
            hint="start one with `ray start --head` and give the address that it prints, or leave --ray-address out",
        ) from None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a run in good order; the handler that Ray has put there dumps its stack and aborts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@contextmanager
def _deaf_terminal() -> Iterator[None]:
    """Ray's inner parts complain past Python, straight to the terminal, about a cluster that does not answer."""
    if os.environ.get("CLOISTER_DEBUG") == "1":
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _workers_environment(**more: str) -> dict[str, dict[str, str]]:
    return {"env_vars": {**_IN_WORKERS, **more}}


def _check_room(ray: Any, resources: Mapping[str, float]) -> None:  # noqa: ANN401 - a module
    """Flower counts how many workers fit each machine of the cluster, and there must be one."""
    cpus, gpus = resources["num_cpus"], resources["num_gpus"]
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus:
            return
    wanted = f"CPU {cpus:g}" + (f", GPU {gpus:g}" if gpus else "")
    raise ConfigError(
        f"a worker needs {wanted}, and no machine of this Ray has that much",
        hint="lower compute.threads, or choose another compute.device",
    )
