"""How a ledger begins, and how it begins again after it was lost: with the worst case charged."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.ledger.anchor import Anchor, read_anchor, write_anchor
from client.ledger.chain import Clock
from client.ledger.check import read_ledger
from client.ledger.file import LedgerFile, WriterLock, create_file
from client.ledger.ledger import utc_now
from client.ledger.rows import (
    HINT,
    BudgetSet,
    Content,
    Opened,
    Recovered,
    Reserved,
    Row,
    new_row,
    not_now,
    own_meaning,
    recovery,
)
from common.errors import CloisterError, IntegrityError
from common.identity import public_name
from common.privacy.renyi_filter import RenyiFilter


def create_ledger(
    path: Path, anchor_path: Path, identity: Ed25519PrivateKey, host: str, *, clock: Clock = utc_now
) -> None:
    """Begin the ledger of a new site; to be called when the site is set up, and never to mend anything.

    Edge cases:
        A kill on the way leaves an anchor of entry 0, with or without a ledger of one entry. Calling this again then
        goes on from there.

    Args:
        path: Where the ledger goes; its folder must exist.
        anchor_path: Where its anchor goes; another folder.
        identity: The site's key.
        host: This machine, by `host_identifier`.
        clock: Gives the time, with its zone.

    Raises:
        IntegrityError: When there is a ledger, or the anchor of one. Neither is touched.
        TryAgainError: When another process is at it, or the disk does not take it.
    """
    with WriterLock(path):
        anchor = read_anchor(anchor_path, public_name(identity))
        begun = Anchor(host=host)
        if anchor == begun and path.exists():
            return
        if path.exists() or anchor not in {None, begun}:
            raise IntegrityError(f"there is a ledger already at {path}, or there was one", hint=HINT)
        # The anchor first: a ledger without one could be an old one whose anchor was removed.
        write_anchor(anchor_path, begun, identity)
        rows = _chain([_opened(identity, host)], clock(), identity)
        create_file(path, rows)
        write_anchor(anchor_path, Anchor.at(rows[-1], host), identity)


def recover_ledger(
    path: Path, anchor_path: Path, identity: Ed25519PrivateKey, host: str, reason: str, *, clock: Clock = utc_now
) -> Path | None:
    """Go on after a ledger was lost, damaged, put back or moved: in writing, signed, and as if all had been spent.

    A new ledger takes the place of the old one, which is kept beside it. Of the old entries, those that can be read and
    are signed by this site still count: each budget at the largest that it ever was, all of it spent, and each plan,
    never to be taken up again. A budget that the new ledger first hears of later has nothing left either, until a
    person raises it. Calling this again does no harm.

    Args:
        path: The ledger, or where it was.
        anchor_path: Its anchor, or where it was.
        identity: The site's key.
        host: This machine, by `host_identifier`.
        reason: In a person's words, 1 to 2000 characters.
        clock: Gives the time, with its zone.

    Returns:
        Where the old file is kept; None when there was none.

    Raises:
        ConfigError: When the reason is empty or longer.
        TryAgainError: When another process has the ledger open, or the disk does not take it; call it again then.
    """
    with WriterLock(path):
        public = public_name(identity)
        entries = _readable(path, public)
        entry = recovery(reason, _finding(path, anchor_path, public, host), _plans(entries))
        rows = _chain([_opened(identity, host), *_largest_budgets(entries), entry], clock(), identity)
        kept = _kept_beside(path, rows[-1].hash[:8])
        create_file(path, rows)
        write_anchor(anchor_path, Anchor.at(rows[-1], host), identity)
    return kept


def _opened(identity: Ed25519PrivateKey, host: str) -> Opened:
    return Opened(ledger=secrets.token_hex(32), site=public_name(identity), host=host)


def _chain(contents: Iterable[Content], now: datetime, identity: Ed25519PrivateKey) -> list[Row]:
    rows: list[Row] = []
    for content in contents:
        rows.append(new_row(rows[-1] if rows else None, content, now, identity))
    return rows


def _finding(path: Path, anchor_path: Path, public: str, host: str) -> str:
    """What is wrong with the ledger, in the words of the error; nothing may be, where the witness is elsewhere."""
    try:
        read_ledger(path, anchor_path, public, host)
    except CloisterError as error:
        return error.message
    return "the files fit together"


def _readable(path: Path, public: str) -> list[Content]:
    """What this site wrote into the old ledger, as far as it can be read, whether or not it is whole."""
    entries: list[Content] = []
    with contextlib.suppress(IntegrityError), closing(LedgerFile(path)) as file:
        for row in file.rows():
            with contextlib.suppress(IntegrityError):
                entries.append(own_meaning(row, public))
    return entries


def _plans(entries: Iterable[Content]) -> tuple[str, ...]:
    plans: set[str] = set()
    for entry in entries:
        if isinstance(entry, Reserved):
            plans.add(entry.plan_digest)
        elif isinstance(entry, Recovered):
            plans.update(entry.plans)
    return tuple(sorted(plans))


def _largest_budgets(entries: Iterable[Content]) -> tuple[BudgetSet, ...]:
    """Of each budget the largest that was ever in force: no more than that can have been spent."""
    largest: dict[tuple[str, str], BudgetSet] = {}
    for entry in entries:
        if isinstance(entry, BudgetSet):
            key = (entry.dataset, entry.unit)
            largest[key] = max(largest.get(key, entry), entry, key=_limit)
    return tuple(largest.values())


def _limit(budget: BudgetSet) -> float:
    return RenyiFilter(budget.epsilon, budget.delta, budget.order).limit


def _kept_beside(path: Path, mark: str) -> Path | None:
    """A second name for the old file. Its journal goes too: it would be played back into the new one."""
    kept = path.with_name(f"{path.name}.set-aside-{mark}")
    try:
        for suffix in ("-wal", "-shm", "-journal"):
            left_over = Path(f"{path}{suffix}")
            if left_over.exists():
                left_over.rename(f"{kept}{suffix}")
        if not path.exists():
            return None
        kept.hardlink_to(path)
    except OSError as error:
        raise not_now(path, error.strerror) from None
    return kept
