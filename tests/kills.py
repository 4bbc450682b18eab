"""Who dies when: moments of a run are counted, and at the n-th a party's home stays as it is on the disk.

A kill is no unwinding: at the moment itself the dying party's home is copied, and after the exception has come out at
the top the copy takes the home's place. So nothing that a `finally` or an `except` does on the way counts, a journal of
SQLite that is not played back yet stays where it is, and so does the half of a file beside its place.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import client.ledger.file
import common.chain_file
import common.files

SITES = ("a", "b", "c", "d")
COORDINATOR = "coordinator"
PACKAGES = ("client.", "common.", "server.")

RIGHT_WRITE, RIGHT_LINE, RIGHT_INSERT = (
    common.files.write_durably,
    common.chain_file._write_at_end,
    client.ledger.file._insert,
)


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@dataclass(frozen=True)
class Moment:
    """A party is just before or after something, or in the middle of it."""

    party: str
    what: str
    when: str

    @property
    def kind(self) -> tuple[str, str, str]:
        """Sites are alike."""
        return ("coordinator" if self.party == COORDINATOR else "site", self.what, self.when)


@dataclass(frozen=True)
class Kill:
    """The n-th moment from the start, or from the kill before, is somebody's last.

    Args:
        moment: n, from 1; or a moment by its name.
        everybody: Whether all parties die; else whoever the moment belongs to.
        again: Whether the network delivers what a dead site was asked once more, when it is back.
        nth: Which one, where the moment has a name.
    """

    moment: int | Moment
    everybody: bool = True
    again: bool = True
    nth: int = 1


class Killer:
    """Counts moments, and ends lives."""

    def __init__(self, folder: Path, kills: Sequence[Kill] = ()) -> None:
        self.moments: list[Moment] = []
        self.party = COORDINATOR
        self._folder, self._kills, self._life = folder, list(kills), list[Moment]()
        self.dead: tuple[str, ...] = ()
        self.again = False

    def __call__(self, what: str, when: str) -> None:
        self._life.append(Moment(self.party, what, when))
        self.moments.append(self._life[-1])
        if self._kills and self._is_due(self._kills[0]):
            self._die(self._kills.pop(0))

    def _is_due(self, kill: Kill) -> bool:
        if isinstance(kill.moment, int):
            return len(self._life) == kill.moment
        return self._life[-1] == kill.moment and self._life.count(kill.moment) == kill.nth

    def _die(self, kill: Kill) -> None:
        self.dead = (COORDINATOR, *SITES) if kill.everybody else (self.party,)
        self.again, self._life = kill.again, []
        for party in self.dead:
            shutil.copytree(self._home(party), self._kept(party), symlinks=True)
        raise KilledError

    def bury(self) -> None:
        """Put in place what was on the disks of the dead."""
        for party in self.dead:
            shutil.rmtree(self._home(party))
            self._kept(party).rename(self._home(party))
        self.dead = ()

    def rest(self) -> int:
        """Kill no more; gives how many kills of the schedule did not come to be."""
        left, self._kills = len(self._kills), []
        return left

    @contextmanager
    def inside(self, site: str) -> Iterator[None]:
        """What happens now happens at a site."""
        self.party = site
        try:
            yield
        finally:
            self.party = COORDINATOR

    def _home(self, party: str) -> Path:
        return self._folder / (COORDINATOR if party == COORDINATOR else f"{party}/home")

    def _kept(self, party: str) -> Path:
        return self._folder / f"{party}.kept"


def _name(path: Path) -> str:
    """What a file is; some have a digest in their names."""
    if path.suffix == ".progress":
        return "base progress"
    return "plan" if path.suffix == ".json" and len(path.stem) == 64 else path.name


class MortalConnection:
    """SQLite, with a moment between the last statement of a transaction and its end."""

    def __init__(self, connection: sqlite3.Connection, committing: Callable[[], None]) -> None:
        self._connection, self._committing = connection, committing

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """As a connection does."""
        if statement == "COMMIT":
            self._committing()
        return self._connection.execute(statement, *values)

    @property
    def in_transaction(self) -> bool:
        """As a connection does."""
        return self._connection.in_transaction


def hook_disk(patch: pytest.MonkeyPatch, killer: Killer) -> None:
    """Have every durable write and every commit pass by the killer."""

    def write(path: Path, content: bytes, mode: int = 0o644) -> None:
        name = _name(path)
        half = path.with_name(f".{path.name}.half")
        half.write_bytes(content[: len(content) // 2])
        half.chmod(0o600)
        killer(name, "before")
        half.unlink()
        RIGHT_WRITE(path, content, mode)
        killer(name, "after")

    def line(handle: int, data: bytes, start: int) -> None:
        killer("audit line", "before")
        RIGHT_LINE(handle, data[: len(data) // 2], start)
        killer("audit line", "half")
        RIGHT_LINE(handle, data, start)
        killer("audit line", "after")

    def insert(connection: sqlite3.Connection, rows) -> None:
        (row,) = rows
        killer(f"ledger {row.kind}", "before")
        RIGHT_INSERT(MortalConnection(connection, lambda: killer(f"ledger {row.kind}", "half")), rows)
        killer(f"ledger {row.kind}", "after")

    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGES) and getattr(module, "write_durably", None) is RIGHT_WRITE:
            patch.setattr(module, "write_durably", write)
    patch.setattr(common.chain_file, "_write_at_end", line)
    patch.setattr(client.ledger.file, "_insert", insert)
