"""Which sites' nodes have connected anew: what the SuperLink handed them before, it hands out no more.

A node that was killed over an order, or lost its connection with an answer in hand, is back within seconds. The order
is sent to it again, the same to the byte, by the one who knows whether it was answered: the site's own memory may be
older than its answers, where somebody has put a copy of its files back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import structlog

from common.errors import TransportError

_log = structlog.get_logger()

LOOK_SECONDS = 2.0
MOST_REPEATS = 5


class Arrivals:
    """Tells connections that came about since it was asked last.

    Edge cases:
        It looks every two seconds at most, and not in the first two of an exchange, which most do not outlast. A
        connection that is older than the exchange, and was not told yet, is told in it. A site is told five times an
        exchange at most: each costs the order's bytes, and a node may come and go as it likes.

    Args:
        look: Site to when its node connected last, in any words that change with each connection; those that are there.
    """

    def __init__(self, look: Callable[[], Mapping[str, str]]) -> None:
        self._look = look
        self._known = look()
        self._next = 0.0
        self._told: Counter[str] = Counter()

    def begin(self) -> None:
        """An exchange begins."""
        self._next = time.monotonic() + LOOK_SECONDS
        self._told.clear()

    def among(self, sites: Collection[str], lost: Collection[str] = ()) -> tuple[str, ...]:
        """Those of the sites whose nodes have connected anew, in order of name.

        Args:
            sites: Who is waited for.
            lost: Of them, those whose order is known to be lost: to be there is enough.
        """
        if not sites or time.monotonic() < self._next:
            return ()
        self._next = time.monotonic() + LOOK_SECONDS
        try:
            now = self._look()
        except TransportError as error:
            _log.info("nobody knows who is connected", reason=error.message)
            return ()
        there = [site for site in sorted(sites) if site in now and self._told[site] < MOST_REPEATS]
        anew = tuple(site for site in there if site in lost or now[site] != self._known.get(site))
        self._known = {**self._known, **{site: now[site] for site in anew}}
        self._told.update(anew)
        return anew
