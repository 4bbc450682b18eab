"""A lock on an open file that ends with the process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator

from common.errors import TryAgainError

_STEP_SECONDS = 0.002


@contextlib.contextmanager
def locked(handle: int, wait_seconds: float, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file while the block runs.

    Guarantees:
        One holder at a time, or several shared ones, among threads and processes that ask in this way: the lock
        belongs to the opening of the file, and goes with it.

    Args:
        handle: An open file, which nobody else writes through.
        wait_seconds: How long to wait for another holder; 0 asks once.
        shared: Set for readers.

    Raises:
        TryAgainError: When another holds it for longer.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    end = time.monotonic() + wait_seconds
    while not _take(handle, kind):
        if time.monotonic() >= end:
            raise TryAgainError(
                f"another process has held a file of this party for more than {wait_seconds:g} seconds",
                hint="wait for the other command to end, then try again",
            )
        time.sleep(_STEP_SECONDS)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _take(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
