"""The number that the SuperLink gave this node, kept for its next life; no secret, and losing it costs a minute."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class NodeNumber:
    """A number in a file, for convenience alone: whatever is wrong with the file, there is none.

    Args:
        path: The file; None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> int:
        """The number; 0 where there is none."""
        try:
            number = 0 if self._path is None else int(self._path.read_bytes()[:32])
        except (OSError, ValueError):
            return 0
        return number if 0 < number < 1 << 64 else 0

    def keep(self, number: int) -> None:
        """Write it down, if that is possible."""
        if self._path is not None:
            with suppress(OSError):
                self._path.write_bytes(b"%d" % number)
