"""The process of a site's node, as other commands see it: whether it runs, how to pause it, how to stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from client.home import SiteHome
from client.status import read_status
from common.errors import DeadlineError, TryAgainError, UsageError
from common.file_lock import holder
from common.files import sync_folder, write_durably
from common.private_files import PRIVATE_FILE

STOP_SECONDS = 5.0
"""A node that was told to stop is gone after so long; see `client.interrupts.GRACE_SECONDS`."""

_STEP_SECONDS = 0.02


def running_node(home: SiteHome) -> int | None:
    """The process of the node that runs in a home; None where none does. It is 0 while the node has not said yet.

    Guarantees:
        What a killed node left behind is no node: what counts is the lock, which goes with its process.
    """
    return holder(home.lock)


def stop_node(home: SiteHome) -> int | None:
    """Ask the node to stop, and wait until it is gone.

    Returns:
        The process that ended; None where none ran.

    Raises:
        TryAgainError: When it starts at this very moment.
        DeadlineError: When it is still there after `STOP_SECONDS`.
    """
    process = running_node(home)
    if process is None:
        return None
    if process == 0:
        raise TryAgainError("the node is just starting", hint="try again in a second")
    with contextlib.suppress(ProcessLookupError):  # gone this very moment
        os.kill(process, signal.SIGTERM)
    if not _comes(lambda: running_node(home) is None):
        rule = f"the node, process {process}, is still there after {STOP_SECONDS:g} seconds"
        raise DeadlineError(rule, hint=f"end it by force: kill -9 {process}; its books survive that")
    return process


def pause_node(home: SiteHome) -> bool:
    """Have the node pause, now or as soon as it starts, and wait until it does.

    Returns:
        Whether it was not paused before.

    Raises:
        DeadlineError: When a running node does not pause within `STOP_SECONDS`.
    """
    is_new = not home.paused.exists()
    write_durably(home.paused, b"", mode=PRIVATE_FILE)
    if not _comes(lambda: running_node(home) is None or _is(home, "paused")):
        hint = "`cloister-site stop` ends it; it stays paused when it is started again"
        raise DeadlineError(f"the node has not paused within {STOP_SECONDS:g} seconds", hint=hint)
    return is_new


def resume_node(home: SiteHome) -> None:
    """End a pause; a node that runs opens its files again.

    Raises:
        UsageError: When there is no pause.
    """
    try:
        home.paused.unlink()
    except FileNotFoundError:
        raise UsageError("the node is not paused", hint="`cloister-site status` shows what it does") from None
    sync_folder(home.path)


def _is(home: SiteHome, doing: str) -> bool:
    status = read_status(home.status)
    return status is not None and status.doing == doing


def _comes(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + STOP_SECONDS
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_STEP_SECONDS)
    return True
