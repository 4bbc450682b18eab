"""Locks that end with the process, however that ends: on an open file, and on a file that says who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from common.errors import TryAgainError
from common.private_files import PRIVATE_FILE

_STEP_SECONDS = 0.002
_LONGEST_NUMBER = 20
_A_LOOK_SECONDS = 0.2
"""Whoever looks who holds a lock file holds it for a moment."""


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


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; it says which process that is.

    Raises:
        TryAgainError: When another process holds it.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with locked(handle, _A_LOOK_SECONDS):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
            yield
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(path: Path) -> int | None:
    """The process that holds a lock file; 0 where it has not said yet who it is, None where nobody holds it.

    Guarantees:
        What a killed process left behind holds nothing: what counts is the lock, which went with it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with locked(handle, 0.0, shared=True):
            return None
    except TryAgainError:
        said = os.pread(handle, _LONGEST_NUMBER, 0).strip()
        return int(said) if said.isdigit() else 0
    finally:
        os.close(handle)
