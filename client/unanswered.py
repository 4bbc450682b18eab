"""The message that a node is at, kept for its next life: the SuperLink hands every message out once.

Without it, a node that is killed over an order would be missing in that round, however soon it is back, and the round
would wait for it until its time is over. What the node answers then is for its books to say, as for any repeat.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from common.private_files import PRIVATE_FILE

_TRIES = 3
_DIGEST_BYTES = 32


class UnansweredMessage:
    """One message in a file, for convenience alone: whatever is wrong with the file, there is none.

    Guarantees:
        A message is given back three times at most: one that ends the node's process does not do so for ever.

    Edge cases:
        Not synced: it outlives the process, and may be lost with the machine's power. The round then waits, or goes on
        without this site.

    Args:
        path: The file; None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def keep(self, message: bytes) -> None:
        """Write a message down in place of the last one, if that is possible."""
        self._write(_TRIES, message)

    def take(self) -> bytes:
        """The message, while it has a try left; nothing where there is none."""
        try:
            content = b"" if self._path is None else self._path.read_bytes()
        except OSError:
            return b""
        message = content[1 + _DIGEST_BYTES :]
        if not content or not content[0] or content[1 : 1 + _DIGEST_BYTES] != hashlib.sha256(message).digest():
            return b""
        self._write(content[0] - 1, message)
        return message

    def forget(self) -> None:
        """It was answered."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self, tries: int, message: bytes) -> None:
        if self._path is None:
            return
        with suppress(OSError):
            handle = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
            with os.fdopen(handle, "wb") as stream:
                stream.write(bytes([min(tries, _TRIES)]) + hashlib.sha256(message).digest() + message)
