"""Follow a run that another process conducts: its events as they come, until it ends or turns out to be dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.errors import CloisterError, TransportError
from server.progress import Event, PhaseProgress, read_progress
from server.runs import ENDS, Run

_LOOK_SECONDS = 0.2
_ASK_SECONDS = 1.0
_GRACE_SECONDS = 5.0
_START_SECONDS = 180.0
"""A ServerApp imports torch before it takes the run's lock."""


class RunLostError(CloisterError):
    """A run ended without a word: its process was killed, or the SuperLink was."""


@dataclass(frozen=True)
class Signs:
    """Where signs of life come from.

    Attributes:
        service_runs: Whether the coordinator's service does.
        run_status: What the SuperLink says of the run; may raise TransportError.
    """

    service_runs: Callable[[], bool]
    run_status: Callable[[], str]


def follow(run: Run, start: int, signs: Signs, clock: Callable[[], float] = time.monotonic) -> Iterator[Event]:
    """The events of a run from a byte position on; ends after the one that ends the run.

    Args:
        run: The run; conducted elsewhere.
        start: Where its events begin.
        signs: Asked about once a second whether it is alive.
        clock: Seconds that never go back.

    Raises:
        RunLostError: When nothing conducts it any more, and its end was not told.
    """
    position, watch = start, _Watch(run, signs, clock)
    while True:
        gone = watch.why_gone()  # before the last look, so that an end that was told meanwhile is seen
        events, position = read_progress(run.folder, position)
        if events:
            watch.note_sign()
        for event in events:
            yield event
            if isinstance(event, PhaseProgress) and event.phase in ENDS:
                return
        if gone and not events:
            raise RunLostError(gone, hint=f"superlink.log may say why; `run {run.signed.digest[:8]} --resume` goes on")
        time.sleep(_LOOK_SECONDS)


class _Watch:
    """Tells a run that takes its time from one that is dead."""

    def __init__(self, run: Run, signs: Signs, clock: Callable[[], float]) -> None:
        self._run, self._signs, self._clock = run, signs, clock
        self._began = self._last_sign = clock()
        self._next_ask = 0.0
        self._was_conducted = False

    def note_sign(self) -> None:
        """It has told something, so it had begun."""
        self._was_conducted, self._last_sign = True, self._clock()

    def why_gone(self) -> str:
        """Why nothing conducts the run any more; empty while something may."""
        now = self._clock()
        if now < self._next_ask:
            return ""
        self._next_ask = now + _ASK_SECONDS
        if self._run.is_conducted:
            self._was_conducted, self._last_sign = True, now
            return ""
        if not self._signs.service_runs():
            return "the coordinator's service has ended, and the run with it"
        return self._of_the_superlink(now)

    def _of_the_superlink(self, now: float) -> str:
        try:
            status = self._signs.run_status()
        except TransportError:
            status = ""
        if status.startswith("finished"):
            return f"the run's process has ended without a word (the SuperLink says {status})"
        silent = now - self._last_sign
        if self._was_conducted and silent > _GRACE_SECONDS:
            return f"nothing has conducted the run for {silent:.0f} s"
        if silent > _START_SECONDS:
            return f"the SuperLink has not started the run within {silent:.0f} s"
        return ""
