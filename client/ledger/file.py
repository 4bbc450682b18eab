"""The ledger's file: SQLite, one table, entries are added and never changed; and the lock of its only writer.

The journal is a rollback journal with `synchronous = EXTRA`: the folder is synced after the journal is removed, so that
an entry that was reported as written is still there after a power cut. (With FULL the journal may come back then, and
take the last entry away, which would look like an older copy put back.)
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from client.ledger.rows import Row, not_now, unfit
from common.errors import TryAgainError
from common.files import sync_folder

_TABLE = (
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, "
    "content TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL, signature TEXT NOT NULL)"
)
_PRIVATE_MODE = 0o600
_BUSY_SECONDS = 5.0
_NO_LEDGER = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class LedgerFile:
    """A connection to a ledger's file.

    Guarantees:
        `append` is one transaction, durable when it returns; whatever it raises, the file holds the whole entry or
        nothing of it. An entry whose number is there already is refused.

    Args:
        path: An existing file.

    Raises:
        IntegrityError: When the file is missing or no ledger.
        TryAgainError: When it cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise unfit(f"{path} is missing")
        with _plain_faults(path):
            self._connection = _connect(path)

    def rows(self) -> tuple[Row, ...]:
        """All entries that are on disk, in order.

        Raises:
            IntegrityError: When the file is damaged, or holds anything but a ledger.
            TryAgainError: When it cannot be read.
        """
        with _plain_faults(self._path):
            _roll_back(self._connection)
            tables = self._connection.execute("SELECT sql FROM sqlite_master").fetchall()
            if tables != [(_TABLE,)]:
                raise unfit(f"{self._path} is not one: it holds other tables than a ledger's")
            found = [Row(*values) for values in self._connection.execute("SELECT * FROM entries ORDER BY sequence")]
        if any(not isinstance(value, str) for row in found for value in tuple(vars(row).values())[1:]):
            raise unfit(f"{self._path} was edited: an entry holds something else than text")
        return tuple(found)

    def append(self, row: Row) -> None:
        """Add one entry durably.

        Raises:
            IntegrityError: When an entry of this number is there already: somebody else wrote it.
            TryAgainError: When the disk does not take it.
        """
        with _plain_faults(self._path):
            _insert(self._connection, (row,))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def create_file(path: Path, rows: Iterable[Row]) -> None:
    """Put a new ledger with these entries at `path` in one step, whatever was there before.

    Raises:
        TryAgainError: When the disk does not take it; `path` is as it was.
    """
    begun = path.with_name(f"{path.name}.begun")
    with _plain_faults(path):
        for left_over in (begun, Path(f"{begun}-journal")):
            left_over.unlink(missing_ok=True)
        os.close(os.open(begun, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE_MODE))
        connection = _connect(begun)
        try:
            connection.execute(_TABLE)
            _insert(connection, rows)
        finally:
            connection.close()
        begun.replace(path)
        sync_folder(path.parent)


class WriterLock:
    """The right to write a ledger: held by one process at a time, given back by its end, however it ends.

    Args:
        ledger: The ledger's path; the lock is a file beside it, made where it is missing and never removed.

    Raises:
        TryAgainError: When another process holds it, or the file cannot be made.
    """

    def __init__(self, ledger: Path) -> None:
        path = ledger.with_name(f"{ledger.name}.lock")
        self._released = False
        try:
            self._handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE_MODE)
        except OSError as error:
            raise not_now(path, error.strerror) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            hint = "stop the other command first, or wait for its end"
            raise TryAgainError(f"another process is writing the ledger ({path} is locked)", hint=hint) from None

    def release(self) -> None:
        """Give it back; doing so twice is harmless."""
        if not self._released:
            self._released = True
            os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", _BUSY_SECONDS, isolation_level=None, uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for row in rows:
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", tuple(vars(row).values()))
        connection.execute("COMMIT")
    except BaseException:  # Also a signal's: an open transaction would show an entry that is not on disk.
        _roll_back(connection)
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def _plain_faults(path: Path) -> Iterator[None]:
    """Faults of SQLite and of the disk as one sentence."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # Ours, not the disk's: another thread, or a closed file.
    except sqlite3.IntegrityError:
        raise unfit(f"{path} was changed by somebody else") from None
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) in _NO_LEDGER:
            raise unfit(f"{path} is damaged") from None
        raise not_now(path, str(error)) from None
    except OSError as error:
        raise not_now(path, error.strerror) from None
