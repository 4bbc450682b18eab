"""A chain of signed lines in a file that only grows, with an anchor elsewhere.

A line is written in this order, under an exclusive lock on the log:

    the line, and fsync | the anchor beside its place, and fsync | rename, and fsync of its folder

so whatever the moment of a crash, the log is where the anchor says, or one line ahead. Less than the anchor, or another
line in its place, was somebody's doing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.chain import (
    LINE_LIMIT_BYTES,
    TAMPERED,
    ChainLine,
    Head,
    is_line_signed_by,
    read_line,
    seal_line,
    walk,
    written_time,
)
from common.chain_anchor import Anchor
from common.errors import IntegrityError, RollbackError
from common.file_lock import locked
from common.files import naming, sync_folder
from common.identity import public_name

MENDED = "mended"
WAIT_SECONDS = 5.0
_PRIVATE_MODE = 0o600


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Place:
    """How far a reader has come: to byte `offset`, the end of `line`, which is spelled `data`."""

    offset: int = 0
    line: ChainLine | None = None
    data: bytes = b""

    @property
    def head(self) -> Head:
        return self.line.head if self.line else Head()

    def after(self, line: ChainLine, data: bytes) -> _Place:
        return _Place(self.offset + len(data), line, data)


class ChainFile:
    """A log that one or several processes append to.

    Guarantees:
        When `append` returns, the line is on disk and anchored. Each line follows the one before, also where another
        process wrote that. Opening reads the whole log and refuses an edited, moved, left-out or inserted line, a
        shortened log, and an older copy of the log or of its anchor.

    Edge cases:
        A last line without its newline was torn by a crash: a line of kind `mended`, with its size and digest, takes
        its place. A log one line ahead of its anchor is what a crash between the two leaves: the anchor follows. When
        `append` raises because the log's disk is full, the log is as before; when the anchor's is, the line stays. Log
        *and* anchor taken away together look like a beginning (see `must_exist`), and older copies of both like the
        past: this file cannot tell. A line that is changed while a process has the log open shows at the next opening,
        or to `verify_chain`; only a change of the last line shows at once.

    Args:
        path: The log; its folder must exist.
        anchor: The anchor; its folder must exist, and should be another one.
        identity: Signs lines and anchor.
        purpose: What the chain is for, in signatures.
        clock: Gives a moment in UTC.
        must_exist: Set where the log was begun before, so that a missing one is a lost one.

    Raises:
        IntegrityError: When log or anchor is damaged, edited, or another identity's.
        RollbackError: When the log is missing or shorter than its anchor says, or the anchor is an older copy.
        TryAgainError: When another process holds the log for more than `WAIT_SECONDS`.
    """

    def __init__(
        self,
        path: Path,
        anchor: Path,
        identity: Ed25519PrivateKey,
        *,
        purpose: str,
        clock: Callable[[], datetime] = utc_now,
        must_exist: bool = False,
    ) -> None:
        self._path = path
        self._anchor = Anchor(anchor, public_name(identity), purpose)
        self._identity = identity
        self._purpose = purpose
        self._clock = clock
        self._place = _Place()
        if not must_exist and not anchor.exists():
            self._begin()
        # The long walk comes first, so that others wait only for the short one under the lock.
        with _opened(path) as handle:
            self._place = _last_place(handle, self._place)
        with self._settled():
            pass

    @property
    def head(self) -> Head:
        """The last line that this object has written or read."""
        return self._place.head

    def append(self, kind: str, fields: Mapping[str, Any]) -> ChainLine:
        """Write one line; it is durable and anchored when this returns.

        Raises:
            IntegrityError: When the log was changed since it was opened, or this would be no line.
            RollbackError: When the log was shortened or taken away since it was opened.
            TryAgainError: When another process holds the log for more than `WAIT_SECONDS`.
            OSError: When a disk does not take it.
        """
        with self._settled() as handle:
            return self._write(handle, kind, fields)

    def _begin(self) -> None:
        """Make the empty log, then its anchor; whoever else begins at this moment makes the same."""
        with _opened(self._path, os.O_RDWR | os.O_CREAT) as handle, locked(handle, WAIT_SECONDS):
            sync_folder(self._path.parent)
            # An anchor always precedes the first line, so a log with lines and no anchor has lost it.
            if os.fstat(handle).st_size == 0 and not self._anchor.path.exists():
                self._anchor.write(self._identity, Head())

    @contextlib.contextmanager
    def _settled(self) -> Iterator[int]:
        """The log, locked, read to its end, at one with its anchor, and mended."""
        with _opened(self._path) as handle, locked(handle, WAIT_SECONDS):
            _check_unchanged(handle, self._place)
            self._place = _last_place(handle, self._place)
            if self._anchor.is_behind(self._anchor.read(), self._place.line):
                self._anchor.write(self._identity, self._place.head)
            self._mend(handle)
            yield handle

    def _mend(self, handle: int) -> None:
        """Put a line that says so in the place of a torn one; a crash in here leaves a torn line again, or the note."""
        torn = os.pread(handle, LINE_LIMIT_BYTES, self._place.offset)
        if torn:
            self._write(handle, MENDED, {"size_bytes": len(torn), "digest": hashlib.sha256(torn).hexdigest()})

    def _write(self, handle: int, kind: str, fields: Mapping[str, Any]) -> ChainLine:
        time = written_time(self._clock())
        data = seal_line(self._identity, self._purpose, self._place.head, time=time, kind=kind, fields=fields)
        line = read_line(data)  # what could not be read again must not be written
        with naming(self._path):
            _write_at_end(handle, data, self._place.offset)
        self._place = self._place.after(line, data)
        self._anchor.write(self._identity, line.head)
        return line


@dataclass(frozen=True)
class VerifiedChain:
    """What `verify_chain` found.

    Attributes:
        head: The last line.
        torn_bytes: Bytes of a last line that a crash tore; the next opening mends it.
        anchor_behind: Whether a crash left the anchor one line behind; the next opening mends it.
    """

    head: Head
    torn_bytes: int
    anchor_behind: bool


def verify_chain(
    path: Path, anchor: Path, public: str, *, purpose: str, note: Callable[[ChainLine], None]
) -> VerifiedChain:
    """Check every hash and every signature of a log, and its anchor; changes nothing and needs no secret.

    Guarantees:
        Lines written while this reads are left for the next time, and nobody waits for more than a moment.

    Args:
        path: The log.
        anchor: Its anchor.
        public: The owner's public key.
        purpose: What the chain is for.
        note: Told each line, in order, once it is known to be good; the end may still be missing then.

    Raises:
        IntegrityError: When log or anchor is damaged, edited, or another identity's.
        RollbackError: When the log is missing or shorter than its anchor says, or the anchor is an older copy.
        TryAgainError: When another process holds the log for more than `WAIT_SECONDS`.
    """
    pin = Anchor(anchor, public, purpose)
    offset, last = 0, None
    with _opened(path, os.O_RDONLY) as handle:
        with locked(handle, WAIT_SECONDS, shared=True):
            size, anchored = os.fstat(handle).st_size, pin.read()
        for line, data in _lines(handle, _Place()):
            if offset == size:
                break
            if not is_line_signed_by(public, purpose, line):
                raise IntegrityError(f"line {line.number} is not signed by the owner of the log", hint=TAMPERED)
            note(line)
            offset, last = offset + len(data), line
    behind = pin.is_behind(anchored, last)
    return VerifiedChain(last.head if last else Head(), size - offset, behind)


@contextlib.contextmanager
def _opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    try:
        handle = os.open(path, flags, _PRIVATE_MODE)
    except FileNotFoundError:
        raise RollbackError(f"the log {path.name} is missing", hint=TAMPERED) from None
    try:
        yield handle
    finally:
        os.close(handle)


def _lines(handle: int, start: _Place) -> Iterator[tuple[ChainLine, bytes]]:
    with open(handle, "rb", closefd=False) as stream:
        stream.seek(start.offset)
        yield from walk(stream, start.head)


def _last_place(handle: int, start: _Place) -> _Place:
    place = start
    for line, data in _lines(handle, start):
        place = place.after(line, data)
    return place


def _check_unchanged(handle: int, place: _Place) -> None:
    """Whether the file still has the line that was last seen in it."""
    if os.fstat(handle).st_size < place.offset:
        raise RollbackError("the log was shortened while it was in use", hint=TAMPERED)
    if os.pread(handle, len(place.data), place.offset - len(place.data)) != place.data:
        raise IntegrityError("the log was changed while it was in use", hint=TAMPERED)


def _write_at_end(handle: int, data: bytes, start: int) -> None:
    """Write a line over a torn one, if any; when the disk does not take it, the file is no longer than before."""
    size = os.fstat(handle).st_size
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(handle, data[written:], start + written)
        os.ftruncate(handle, start + len(data))
        os.fsync(handle)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise
