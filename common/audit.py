"""The audit log of a site or of the coordinator: what it was asked, what it did, and what it let out.

Durability: every event is on disk, with its anchor, before `record` returns: two fsyncs of files and one of a folder.
So a message that was recorded before it leaves is in the log whatever the process dies of.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from common.audit_events import AuditEvent, Recovered
from common.canonical import file_digest
from common.chain import TAMPERED, ChainLine, Head
from common.chain_file import ChainFile, utc_now, verify_chain
from common.errors import IntegrityError, RollbackError, TryAgainError

_PURPOSE = "audit log"


def _word(event: type[Any]) -> str:
    """`MessageOut` is written as `message-out`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", event.__name__).lower()


EVENT_KINDS: Mapping[str, type[AuditEvent]] = {_word(event): event for event in get_args(AuditEvent)}
"""Every kind by the word that stands for it in the log."""

_WORDS = {event: word for word, event in EVENT_KINDS.items()}


def kind_of(event: AuditEvent) -> str:
    """The word that stands for an event in the log.

    Raises:
        IntegrityError: When it is not on the list; a class made from one on the list is not on it.
    """
    word = _WORDS.get(type(event))
    if word is None:
        raise IntegrityError(f"a {type(event).__name__} is not on the list of events that may be recorded")
    return word


@dataclass(frozen=True)
class AuditEntry:
    """One event of a log, with its number from 1 and its moment as `2026-11-21T15:04:05.678Z`."""

    number: int
    time: str
    event: AuditEvent


@dataclass(frozen=True)
class AuditReport:
    """A log that holds together, from its first line to its last.

    Attributes:
        head: Number and hash of the last line.
        entries: Every event, in order.
        counts: How many there are of each kind.
        torn_bytes: Bytes of a last line that a crash tore; the next opening mends it.
        anchor_behind: Whether a crash left the anchor one line behind; the next opening mends it.
        steps_back: How often a line has an earlier time than the line before it: the clock was moved.
    """

    head: Head
    entries: tuple[AuditEntry, ...]
    counts: Mapping[str, int]
    torn_bytes: int
    anchor_behind: bool
    steps_back: int


class AuditLog:
    """Where a party writes down what happened.

    Guarantees:
        An event is durable when `record` returns, and it is of the list in `common.audit_events`, to the last field.
        Several processes may record into one log at the same time. Opening reads the log and refuses one that was
        edited, shortened or replaced; see `common.chain_file.ChainFile` for what it can and cannot see.

    Args:
        path: The log; its folder must exist.
        anchor: Its anchor, in another folder; must exist.
        identity: Signs each line.
        clock: Gives a moment in UTC.
        must_exist: Set where a log was begun before, so that a missing one is a lost one.

    Raises:
        IntegrityError: When log or anchor is damaged, edited, or another identity's, or has an event of no known kind.
        RollbackError: When the log is missing or shorter than its anchor says, or the anchor is an older copy.
        TryAgainError: When another process holds the log for more than five seconds.
    """

    def __init__(
        self,
        path: Path,
        anchor: Path,
        identity: Ed25519PrivateKey,
        *,
        clock: Callable[[], datetime] = utc_now,
        must_exist: bool = False,
    ) -> None:
        self._chain = ChainFile(path, anchor, identity, purpose=_PURPOSE, clock=clock, must_exist=must_exist)

    @property
    def head(self) -> Head:
        """Number and hash of the last line that this object has written or read."""
        return self._chain.head

    def record(self, event: AuditEvent) -> AuditEntry:
        """Write one event; it is durable when this returns.

        Raises:
            IntegrityError: When the event is of no kind on the list, or the log was changed since it was opened.
            RollbackError: When the log was shortened or taken away since it was opened.
            TryAgainError: When another process holds the log for more than five seconds.
            OSError: When a disk does not take it; what was about to happen must not happen.
        """
        line = self._chain.append(kind_of(event), event.model_dump(mode="json"))
        return AuditEntry(line.number, line.time, event)


def verify_audit(path: Path, anchor: Path, public: str) -> AuditReport:
    """Check every line of a log and its anchor; changes nothing and needs no secret.

    Args:
        path: The log.
        anchor: Its anchor.
        public: The owner's public key.

    Raises:
        IntegrityError: When log or anchor is damaged, edited, or another identity's, or has an event of no known kind.
        RollbackError: When the log is missing or shorter than its anchor says, or the anchor is an older copy.
        TryAgainError: When another process holds the log for more than five seconds.
    """
    return _verify(path, anchor, public, [])


@dataclass(frozen=True)
class AuditReading:
    """What can be read of a log, and why no more; `fault` is None where the whole log holds together."""

    entries: tuple[AuditEntry, ...]
    fault: IntegrityError | RollbackError | None


def read_audit(path: Path, anchor: Path, public: str) -> AuditReading:
    """The events of a log up to its first fault, each of them signed by the owner, for a reader who must see both.

    Args:
        path: The log.
        anchor: Its anchor.
        public: The owner's public key.

    Raises:
        TryAgainError: When another process holds the log for more than five seconds.
    """
    entries: list[AuditEntry] = []
    try:
        _verify(path, anchor, public, entries)
    except (IntegrityError, RollbackError) as error:
        return AuditReading(tuple(entries), error)
    return AuditReading(tuple(entries), None)


def _verify(path: Path, anchor: Path, public: str, entries: list[AuditEntry]) -> AuditReport:
    """Verify a log, and leave its events in `entries` even where it turns out to be faulty."""
    verified = verify_chain(path, anchor, public, purpose=_PURPOSE, note=lambda line: entries.append(_entry(line)))
    return AuditReport(
        head=verified.head,
        entries=tuple(entries),
        counts=Counter(kind_of(entry.event) for entry in entries),
        torn_bytes=verified.torn_bytes,
        anchor_behind=verified.anchor_behind,
        steps_back=sum(after.time < before.time for before, after in pairwise(entries)),
    )


def recover_audit(
    path: Path, anchor: Path, identity: Ed25519PrivateKey, *, by: str, clock: Callable[[], datetime] = utc_now
) -> AuditLog:
    """Put a log that does not hold together aside, and begin a new one that says so in its first line.

    Guarantees:
        Nothing is deleted: what is there keeps its bytes under a name with the moment in it. A crash in here leaves a
        log that does not hold together, so that it can be done again.

    Args:
        path: The log.
        anchor: Its anchor.
        identity: Signs the new log.
        by: Who decided so.
        clock: Gives a moment in UTC.

    Raises:
        TryAgainError: When a log was put aside at this very moment.
    """
    event = Recovered(what="audit", by=by, digest=file_digest(path) if path.exists() else None)
    moment = clock().strftime("%Y%m%dT%H%M%SZ")
    for old in (path, anchor):
        if old.exists():
            _put_aside(old, old.with_name(f"{old.name}.{moment}"))
    log = AuditLog(path, anchor, identity, clock=clock)
    log.record(event)
    return log


def _put_aside(old: Path, new: Path) -> None:
    if new.exists():
        raise TryAgainError(f"{new.name} is there already", hint="wait a second, then try again")
    old.rename(new)


def _entry(line: ChainLine) -> AuditEntry:
    kind = EVENT_KINDS.get(line.kind)
    if kind is None:
        raise IntegrityError(f"line {line.number} has an event of no known kind", hint=TAMPERED)
    try:
        event = kind.model_validate(line.fields)
    except ValidationError:
        raise IntegrityError(f"line {line.number} has fields that a {line.kind} does not have", hint=TAMPERED) from None
    return AuditEntry(line.number, line.time, event)
