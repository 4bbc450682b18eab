"""Where a command begins, before anything of it is imported: an interrupt ends it at once, without a traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
"""Exit code, as shells give it."""


@contextmanager
def interrupts_leave() -> Iterator[None]:
    """While a command is imported, which takes half a second, Ctrl-C ends the process with 130 and without a word.

    Guarantees:
        Nothing is lost by that: what is imported has not begun yet. Raised as an exception, an interrupt would show the
        line that it met, or be swallowed by a library that tries whether another one can be imported.

    Edge cases:
        Where the signal is ignored or somebody else's, as under `nohup`, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
