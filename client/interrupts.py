"""How a hospital stops its node within seconds, whatever the node is doing.

Every durable write of the node is safe against a kill, so an interrupt may come anywhere: it is raised in the main
thread at its next step, and what was half done is done again or refused, as after a kill. Where the main thread does
not come back in time (a long call into compiled code), the process ends there and then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

GRACE_SECONDS = 4.0
"""From the signal to the end of the process at the latest."""

_LOOK_SECONDS = 0.2
_TRY_AGAIN = 75


class StopRequestedError(BaseException):
    """The node was asked to stop, by SIGTERM, SIGINT or `cloister-site stop`."""


class PauseRequestedError(BaseException):
    """The node was asked to pause, by `cloister-site pause`."""


class Interrupts:
    """Turns signals and the pause file into exceptions in the main thread.

    Guarantees:
        Within `GRACE_SECONDS` of a signal the exception was raised in the main thread and `settle` or `leave` was
        called, or the process is gone. The same holds from `_LOOK_SECONDS` after the pause file appears.

    Args:
        paused: The file whose presence means pause; None where only a stop interrupts.
    """

    def __init__(self, paused: Path | None) -> None:
        self._paused = paused
        self._watching = threading.Event()
        self._settled = threading.Event()

    @contextmanager
    def raised(self) -> Iterator[None]:
        """While inside, a stop or pause is raised here; must be entered in the main thread."""
        previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(done,), name="pause watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            for number, handler in previous.items():
                signal.signal(number, handler)
            watcher.join()

    def settle(self) -> None:
        """Everything is closed, and the process goes on: a pause is over the hill. After a stop, call `leave`."""
        self._settled.set()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(_LOOK_SECONDS):
            if self._paused is not None and self._paused.exists():
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        pausing = number == signal.SIGUSR1
        self._settled.clear()
        threading.Thread(target=self._enforce, args=(_TRY_AGAIN if pausing else 0,), daemon=True).start()
        raise PauseRequestedError if pausing else StopRequestedError

    def _enforce(self, exit_code: int) -> None:
        if not self._settled.wait(GRACE_SECONDS):
            os._exit(exit_code)


def leave(exit_code: int) -> NoReturn:
    """End the process at once: everything is closed, and unloading a model can take seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
