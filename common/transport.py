"""The one method by which a coordinator reaches its sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol


class Transport(Protocol):
    """Carries one order to each site, and answers back; knows nothing of what the bytes mean.

    A caller may assume:
        Answers to *these* orders stop coming when the iterator ends, which it does in bounded time; and an answer is
        handed over as soon as it is there, so that a caller that adds it up at once holds one at a time.

    A caller may not assume:
        That a site answers at all, answers once, or answers in any order. That an answer belongs to these orders: one
        that was late in an earlier exchange may come now. That the bytes are whole, or made by the site in whose name
        they come: names are labels on a channel, which `server.envelopes` checks. That anything was sent before the
        first answer is asked for, or that all was sent when the iterator is dropped before its end. That a site did
        nothing because it did not answer: it may have trained and be charged.

    What follows for a caller: decode strictly, match plan, round and site, count each site once, exhaust the iterator,
    and send the same bytes again when the same thing is meant, so that a site can answer without a second charge.
    """

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Send one order to each named site and yield answers as they come.

        Args:
            orders: Site name to frame.

        Yields:
            Site name and the frame that came from it; perhaps missing, repeated, stale or damaged.

        Raises:
            TransportError: When no site at all can be reached, or a name is not on this network.
        """
        ...
