"""How a hospital stops its node within seconds, whatever the node is doing.

Every durable write of the node is safe against a kill, so an interrupt may come anywhere: it is raised in the main
thread at its next step, and what was half done is done again or refused, as after a kill. Where the main thread does
not come back in time (a long call into compiled code), the process ends there and then: a thread of its own hears of
each signal through a pipe, because Python runs no handler before such a call returns.
"""

from __future__ import annotations

import os
import select
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

_DEFAULTS: tuple[object, ...] = (signal.SIG_DFL, signal.default_int_handler)
_LOOK_SECONDS = 0.2
_TRY_AGAIN = 75
_STOPS = (signal.SIGTERM, signal.SIGINT)
_PAUSE = signal.SIGUSR1


class StopRequestedError(BaseException):
    """The node was asked to stop, by SIGTERM, SIGINT or `cloister-site stop`."""


class PauseRequestedError(BaseException):
    """The node was asked to pause, by `cloister-site pause`."""


class Interrupts:
    """Turns signals and the pause file into exceptions in the main thread.

    Guarantees:
        Within `GRACE_SECONDS` of a signal the exception was raised in the main thread and `settle` or `leave` was
        called, or the process is gone. The same holds from `_LOOK_SECONDS` after the pause file appears. Each is raised
        once, so that a second Ctrl-C does not tear up the closing that the first began; a stop comes through a pause,
        and one that comes while `raised` ends is raised at its end.

    Edge cases:
        An exception that is lost on the way (raised within a destructor, say) is made up for by the end of the process.
        Where no pause file was given, a pause's signal is nothing.

    Args:
        paused: The file whose presence means pause; None where only a stop interrupts.
    """

    def __init__(self, paused: Path | None) -> None:
        self._paused = paused
        self._asked: type[BaseException] | None = None
        self._raised: type[BaseException] | None = None
        self._armed = False
        self._enclosing: object = None
        self._over = threading.Event()
        self._stopping = False
        self._countdowns: list[threading.Event] = []
        self._lock = threading.Lock()

    @contextmanager
    def raised(self) -> Iterator[None]:
        """While inside, a stop or pause is raised here; must be entered in the main thread."""
        self._asked = self._raised = None
        self._over.clear()
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        listener = threading.Thread(target=self._listen, args=(reading,), name="interrupts", daemon=True)
        listener.start()
        self._enclosing = getattr(signal.getsignal(_STOPS[0]), "__self__", None)
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        previous = {number: signal.signal(number, self._on_signal) for number in (*_STOPS, _PAUSE)}
        try:
            self._armed = True
            self._raise_asked()
            yield
        finally:
            self._armed = False
            with self._lock:  # from here on no pause is sent, to handlers that are not there any more
                self._over.set()
            for number, handler in previous.items():
                # A process that is ending is not to be ended again by a second signal, half way through its closing.
                ending = self._was_stopped() and handler in _DEFAULTS
                signal.signal(number, signal.SIG_IGN if ending else handler)
            signal.set_wakeup_fd(wakeup)
            os.close(writing)
            listener.join()
            self._raise_asked()

    def _was_stopped(self) -> bool:
        return self._raised is StopRequestedError

    def settle(self) -> None:
        """Everything is closed, and the process goes on: a pause is over the hill. After a stop, call `leave`."""
        self._stopping = False
        while self._countdowns:
            self._countdowns.pop().set()

    def mark(self, asked: type[BaseException]) -> None:
        """This was raised. Around this one there may be others, whose handlers come back while the process closes."""
        self._asked = self._raised = asked
        if asked is StopRequestedError and isinstance(self._enclosing, Interrupts):
            self._enclosing.mark(asked)

    # --- in the main thread ---

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == _PAUSE and (self._paused is None or self._asked is not None):
            return
        self._asked = PauseRequestedError if number == _PAUSE else StopRequestedError
        if self._armed:
            self._raise_asked()

    def _raise_asked(self) -> None:
        """Raise what was asked for, unless that was done; at the end of `raised`, only a stop is still worth it."""
        asked = self._asked
        if asked is None or asked is self._raised or (asked is PauseRequestedError and not self._armed):
            return
        self.mark(asked)
        raise asked

    # --- in a thread that does not wait for the main one ---

    def _listen(self, reading: int) -> None:
        """Hear of signals, as bytes from the interpreter, and look for the pause file; ends with `raised`."""
        looking = self._paused is not None
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while True:
                if select.select([pipe], [], [], _LOOK_SECONDS if looking else None)[0]:
                    numbers = pipe.read(64)
                    if not numbers:
                        return
                    self._begin_countdown(numbers)
                elif self._send_pause():
                    looking = False

    def _send_pause(self) -> bool:
        """Whether the pause file is there; then the main thread is told, as by anybody else's signal."""
        with self._lock:
            if self._over.is_set() or self._paused is None or not self._paused.exists():
                return False
            os.kill(os.getpid(), _PAUSE)
            return True

    def _begin_countdown(self, numbers: bytes) -> None:
        """A stop takes the place of a pause, and the first stop is the one that counts."""
        is_stop = any(number in numbers for number in _STOPS)
        is_pause = _PAUSE in numbers and self._paused is not None
        if self._stopping or not (is_stop or is_pause):
            return
        if is_stop:
            self.settle()
            self._stopping = True
        settled = threading.Event()
        self._countdowns.append(settled)
        threading.Thread(target=_end_unless, args=(settled, 0 if is_stop else _TRY_AGAIN), daemon=True).start()


def _end_unless(settled: threading.Event, exit_code: int) -> None:
    if not settled.wait(GRACE_SECONDS):
        os._exit(exit_code)


def leave(exit_code: int) -> NoReturn:
    """End the process at once: everything is closed, and unloading a model can take seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
