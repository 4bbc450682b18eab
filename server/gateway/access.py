"""Access lines: who asked for what, how often, and how much went in and out; a flood makes no flood of lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

REFUSED = "refused"
"""Stands in a line for every path that is not on the list, so that nobody writes into the log by asking."""

NO_ANSWER = 0
"""Stands for the status where a connection was closed without an answer."""

OTHERS = "others"
"""Stands for the address where a window already has all the lines it may."""


@dataclass(frozen=True)
class AccessLine:
    """Like requests, counted: same address, same path, same status.

    Attributes:
        time: When the first of them was answered (UTC).
        address: IPv4 address or IPv6 /64 network; `others` beyond the lines of a window.
        path: One of `server.gateway.rules.FLEET_PATHS`, or `refused`.
        status: What was answered; 0 when the connection was closed without an answer.
        requests: How many there were.
        bytes_in: Bytes of bodies read from outside.
        bytes_out: Bytes of bodies sent outside.
    """

    time: datetime
    address: str
    path: str
    status: int
    requests: int
    bytes_in: int
    bytes_out: int


@dataclass
class _Tally:
    since: datetime
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


_Key = tuple[str, str, int]


class AccessBook:
    """Collects what was served and hands it out as few lines.

    Guarantees:
        Every request is in exactly one line. A kind of request (address, path, status) that did not occur in the
        window before is handed out at once, everything else at the end of its window. A window has at most
        2 · (`lines` + 1) lines, whatever is asked.

    Args:
        window_seconds: Length of a window.
        lines: Kinds of requests that a window tells apart.
        clock: Seconds that never go back.
        now: The time that lines carry.
    """

    def __init__(
        self,
        window_seconds: float,
        lines: int,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._window_seconds, self._lines, self._clock, self._now = window_seconds, lines, clock, now
        self._window_ends = clock() + window_seconds
        self._tallies: dict[_Key, _Tally] = {}
        self._known: set[_Key] = set()
        self._seen: set[_Key] = set()

    def note(self, address: str, path: str, status: int, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Count one request that was answered, refused or cut off."""
        key = (address, path, status)
        if key not in self._seen and len(self._seen) >= self._lines:
            key = (OTHERS, REFUSED, NO_ANSWER)
        self._seen.add(key)
        tally = self._tallies.setdefault(key, _Tally(self._now()))
        tally.requests += 1
        tally.bytes_in += bytes_in
        tally.bytes_out += bytes_out

    def due(self) -> tuple[AccessLine, ...]:
        """Hand out the lines whose time has come: new kinds at once, the rest when the window is over."""
        if self._clock() >= self._window_ends:
            return self.close_window()
        fresh = [key for key in self._tallies if key not in self._known]
        self._known.update(fresh)
        return tuple(self._line(key) for key in fresh)

    def close_window(self) -> tuple[AccessLine, ...]:
        """Hand out all that is left, and begin a new window."""
        self._window_ends = self._clock() + self._window_seconds
        lines = tuple(self._line(key) for key in list(self._tallies))
        self._known, self._seen = self._seen, set()
        return lines

    def _line(self, key: _Key) -> AccessLine:
        tally = self._tallies.pop(key)
        return AccessLine(tally.since, *key, tally.requests, tally.bytes_in, tally.bytes_out)
