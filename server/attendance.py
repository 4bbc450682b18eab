"""Which of the sites that were asked did not answer, for people who would call them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from common.transport import Transport


class Attendance:
    """A `Transport` that remembers who was silent.

    Edge cases:
        A frame in a site's name counts as its answer, whatever is in it: refusals and nonsense are told of elsewhere.

    Args:
        inner: What is asked.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._silent: set[str] = set()

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`."""
        waiting = set(orders)
        for site, frame in self._inner.exchange(orders):
            waiting.discard(site)
            yield site, frame
        self._silent |= waiting

    def take_silent(self) -> tuple[str, ...]:
        """Sites that left an order unanswered since this was last asked, in order of name."""
        silent, self._silent = tuple(sorted(self._silent)), set()
        return silent
