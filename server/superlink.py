"""The stock SuperLink as a process of ours: on loopback only, with TLS, node authentication and a database file."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import closing, suppress
from types import TracebackType
from typing import Self

from common.errors import ConfigError
from common.files import write_durably
from common.private_files import PRIVATE_FILE
from common.processes import PROC, family_of
from server.home import CoordinatorHome

LOOPBACK = "127.0.0.1"

_STOP_SECONDS = 3.0
_COMMAND = "flower-superlink"
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != int(sys.argv[1]):
    sys.exit("the service that starts the SuperLink is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel for a SIGKILL when the parent ends, however that ends, and becomes the SuperLink."""


class SuperLink:
    """A running SuperLink.

    Guarantees:
        It listens on loopback only: its Control and Runtime APIs let in whoever reaches them. Run-time installation of
        dependencies, telemetry and the look for updates are off. It and all that it started are gone when `stop`
        returns. On Linux it ends with the process that started it, also by SIGKILL, and what it started follows within
        a second; one that was left behind all the same is ended first.

    Edge cases:
        To Linux the parent is the thread that made this object: it must live as long as the SuperLink shall.

    Args:
        home: The coordinator's home: certificates, database, log.
        port: On loopback.

    Raises:
        ConfigError: When Flower is not installed, or another process listens on the port.
    """

    def __init__(self, home: CoordinatorHome, port: int) -> None:
        command = _command(home, port)
        _end_left_behind(home)
        _refuse_taken(port)
        self._home = home
        self._log = home.superlink_log.open("ab")
        self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            command,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # Ctrl-C in a terminal is for our process, which then ends this one in order.
            start_new_session=True,
        )
        write_durably(home.superlink_process, str(self._process.pid).encode("ascii"), mode=PRIVATE_FILE)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it. It is asked first; waiting for open connections, it would take half a minute, and gets three seconds.

        Its state is in the database, and safe against a kill.
        """
        if self._log.closed:
            return  # it was stopped before, and its number may be another's by now
        # What it has started leads sessions of its own, and would only notice after a while that it is gone.
        family = family_of(self._process.pid)
        try:
            self._process.terminate()
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill(family - {self._process.pid})
            self._process.kill()
            self._process.wait()
            self._log.close()
            self._home.superlink_process.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def last_words(home: CoordinatorHome, lines: int = 3) -> str:
    """The last lines of the SuperLink's log, for a message about its end."""
    try:
        text = home.superlink_log.read_bytes()[-2000:].decode("utf-8", "replace")
    except OSError:
        return ""
    return " / ".join(line.strip() for line in text.splitlines()[-lines:])


def _command(home: CoordinatorHome, port: int) -> list[str]:
    executable = shutil.which(_COMMAND, path=sysconfig.get_path("scripts"))
    if executable is None:
        raise ConfigError(f"{_COMMAND} is not installed", hint="pip install 'cloister[coordinator]'")
    return [
        *_bound_to_this_process(),
        executable,
        *("--ssl-certfile", str(home.superlink_certificate)),
        *("--ssl-keyfile", str(home.superlink_key)),
        *("--ssl-ca-certfile", str(home.ca_certificate)),
        *("--database", str(home.superlink_database)),
        *("--host", LOOPBACK, "--port", str(port)),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


def _bound_to_this_process() -> tuple[str, ...]:
    """What has a command end with this process, where the system offers that."""
    if sys.platform != "linux":
        return ()
    return sys.executable, "-I", "-c", _DIE_WITH_PARENT, str(os.getpid())


def _environment(home: CoordinatorHome) -> dict[str, str]:
    # What it starts by itself (flower-superexec, flwr-serverapp) is looked for on the path.
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    quiet = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        "FLWR_LOG_LEVEL": "WARNING",  # a line for each call would fill the disk
    }
    # Nothing of another Flower in this account is read or written.
    return {**os.environ, **quiet, "FLWR_HOME": str(home.flower), "PATH": path, "PYTHONSAFEPATH": "1"}


def _end_left_behind(home: CoordinatorHome) -> None:
    """End the SuperLink of this home whose own coordinator was killed; nothing else has its database on its line."""
    try:
        pid = int(home.superlink_process.read_text(encoding="ascii"))
        line = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return
    if os.fsencode(home.superlink_database) in line:
        _kill(family_of(pid))
        deadline = time.monotonic() + _STOP_SECONDS
        while (PROC / str(pid)).exists() and time.monotonic() < deadline:
            time.sleep(0.05)


def _kill(pids: frozenset[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _refuse_taken(port: int) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError:
            raise ConfigError(
                f"port {port} on {LOOPBACK} is not for this account to listen on",
                hint="set listen.superlink_port in coordinator.toml to one above 1023",
            ) from None
        except OSError:
            raise ConfigError(
                f"port {port} on {LOOPBACK} is taken by another process",
                hint="stop that process, or set listen.superlink_port in coordinator.toml",
            ) from None
