"""A ledger and its anchor, kept together over every crash.

An entry is written in this order:

    1. the entry into the ledger, durably      2. the anchor, durably      3. only then does the call return

*A crash between 1 and 2* leaves the ledger one entry ahead of its anchor. On the next opening, an entry that follows
the anchored one and is signed by this site is taken over, and the anchor catches up before anything else happens: no
false alarm. It is no loophole either. Whoever takes that entry away again gets a ledger that fits the old anchor, but
the call that wrote the entry never returned, so that no record was touched for it; and once the anchor has caught up,
that ledger is too old. The other order would be worse: an anchor one entry ahead, after a crash, looks just like a
ledger whose last entry was taken away. A ledger that is more than one entry ahead never comes from a crash, and is
refused: an older anchor was put back.

*A write that fails* leaves the object knowing nothing, because the disk may hold the entry or not: the next call reads
both files again, and lets the anchor catch up, before it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.ledger.anchor import Anchor, read_anchor, write_anchor
from client.ledger.check import check_rows
from client.ledger.file import LedgerFile, WriterLock
from client.ledger.rows import Content, Row, new_row
from client.ledger.state import LedgerState, fold
from common.identity import public_name

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class LedgerPlace:
    """Where a ledger and its anchor are, whose they are, and on which machine (by `host_identifier`)."""

    path: Path
    anchor_path: Path
    identity: Ed25519PrivateKey
    host: str


class LedgerChain:
    """The entries of a ledger, open for adding one after the other, by one process at a time.

    Guarantees:
        `append` returns only when entry and anchor are durable. What `state` and `rows` show is on disk, and the anchor
        knows it.

    Args:
        place: The files and their owner.
        clock: Gives the time, with its zone.

    Raises:
        IntegrityError: When a file is missing, damaged, edited, of another site or another machine.
        RollbackError: When entries are missing at the end, or an older ledger or anchor was put back.
        TryAgainError: When another process has it open, or the disk does not give or take something.
    """

    def __init__(self, place: LedgerPlace, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._rows: list[Row] = []
        self._state = LedgerState()
        # Set while memory and disk may differ: before the first look, and from before a write until both are durable.
        self._stale = True
        self._lock = WriterLock(place.path)
        try:
            self._file = LedgerFile(place.path)
        except BaseException:
            self._lock.release()
            raise

    @property
    def state(self) -> LedgerState:
        """What the entries add up to."""
        self._settle()
        return self._state

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every entry, oldest first."""
        self._settle()
        return tuple(self._rows)

    def forget(self) -> None:
        """Read both files again before the next answer."""
        self._stale = True

    def append(self, content: Content) -> None:
        """Add an entry.

        Raises:
            IntegrityError: When it cannot follow those that are there; nothing was written.
            TryAgainError: When the disk does not take it. The next call finds out what is on disk.
        """
        self._settle()
        row = new_row(self._rows[-1], content, self._clock(), self._place.identity)
        following = self._state.after(row)
        self._stale = True
        self._file.append(row)
        self._anchor_at(row)
        self._rows.append(row)
        self._state = following
        self._stale = False

    def close(self) -> None:
        """Let go of the files, so that another process may write."""
        self._file.close()
        self._lock.release()

    def _settle(self) -> None:
        """Know what is on disk; where the anchor is one entry behind, as a crash leaves it, let it catch up first."""
        if not self._stale:
            return
        public = public_name(self._place.identity)
        anchor = read_anchor(self._place.anchor_path, public)
        rows = self._file.rows()
        check_rows(rows, anchor, public, self._place.host)
        self._state = fold(rows)
        self._rows = list(rows)
        if anchor != Anchor.at(rows[-1], self._place.host):
            self._anchor_at(rows[-1])
        self._stale = False

    def _anchor_at(self, row: Row) -> None:
        write_anchor(self._place.anchor_path, Anchor.at(row, self._place.host), self._place.identity)
