"""What no single book can see: ledger, audit log and inbox are compared with each other when a site opens.

Each of the three notices an older copy of itself, unless its anchor was put back with it. But what they tell overlaps:
a reservation and a charged round stand in ledger and audit log, and what the inbox keeps as its last reply was recorded
as it left. They are written in this order, so that a kill leaves a book one step behind the one before it, never more:

    ledger | audit log | inbox's reply | send

So whoever puts back one or two of them is found out here; for all of them together there is the sequence that the
coordinator acknowledges (`client.inbox`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from client.ledger.rows import Committed, Recovered, Reserved, Row
from client.ledger.state import LONG_AGO
from common.audit import AuditEntry, AuditLog
from common.audit_events import AuditEvent, MessageOut, RoundCharged
from common.audit_events import Recovered as AuditRecovered
from common.audit_events import Reserved as AuditReserved
from common.envelope import open_envelope
from common.errors import IntegrityError, RollbackError

_HINT = "put the newest copy of all files back, or `cloister-site recover` writes down that it is lost"
_COST_DIGITS = 6


@dataclass(frozen=True)
class _Spending:
    """A reservation (round 0) or a charged round."""

    plan: str
    round_number: int = 0


def check_books(entries: Sequence[AuditEntry], rows: Sequence[Row], kept_reply: bytes | None) -> tuple[AuditEvent, ...]:
    """Refuse books of different times.

    Guarantees:
        Every reservation and charged round that the audit log tells of is in the ledger, and the other way round; the
        last reply that the inbox keeps was recorded as a message out.

    Edge cases:
        What came first is told by the order of the entries alone: a clock may have been anywhere. The ledger's last
        reservation or round may lack its line in the audit log, as a kill leaves it: then the event comes back, to be
        recorded. What lies before a written recovery is not compared: in the audit log what is above
        its last line about a recovery of the ledger, in the ledger what is above its own entry about that. A recovery
        that was killed before the audit log had its line is done again. A kept reply that is lost or damaged says
        nothing here: `client.inbox_record` refuses it.

    Args:
        entries: The audit log, found whole.
        rows: The ledger, found whole.
        kept_reply: The inbox's last reply, sealed and undamaged; None where it has none.

    Returns:
        What the audit log lacks.

    Raises:
        RollbackError: When one of them is older than another.
    """
    told = _told(_since_recovery(entries))
    if not told <= {spending for row in rows if (spending := _spending(row)) is not None}:
        raise RollbackError("the ledger lacks what the audit log tells of: an older copy was put back", hint=_HINT)
    _check_reply(entries, kept_reply)
    return _missing(entries, rows)


def record_missing(audit: AuditLog, events: Iterable[AuditEvent]) -> None:
    """Write down what a kill kept out of the audit log."""
    for event in events:
        audit.record(event)


def _missing(entries: Sequence[AuditEntry], rows: Sequence[Row]) -> tuple[AuditEvent, ...]:
    """The event of the ledger's last spending, where the audit log lacks it; more than that no kill leaves."""
    told = _told(entries)
    recovered = max((row.sequence for row in rows if isinstance(row.meaning, Recovered)), default=0)
    spent = [row for row in rows if _spending(row) is not None and row.sequence > recovered]
    lacking = [row for row in spent if _spending(row) not in told]
    if not lacking:
        return ()
    if lacking != spent[-1:]:
        raise RollbackError("the audit log lacks what the ledger tells of: an older copy was put back", hint=_HINT)
    return (_event(lacking[0]),)


def _event(row: Row) -> AuditEvent:
    match row.meaning:
        case Reserved() as made:
            cost = round(made.cost + 0.5 * 10**-_COST_DIGITS, _COST_DIGITS)
            return AuditReserved(
                plan=made.plan_digest, dataset=made.dataset, unit=made.unit, rounds=made.rounds, cost=cost
            )
        case Committed() as begun:
            return RoundCharged(plan=begun.plan_digest, round_number=begun.round_number, order=begun.order_digest)
        case _:
            raise IntegrityError(f"entry {row.sequence} of the ledger spends nothing")


def latest_moment(entries: Sequence[AuditEntry]) -> datetime:
    """The latest time in the audit log since the last recovery, which forgives a clock that once ran ahead.

    Args:
        entries: The audit log, found whole.
    """
    return max((datetime.fromisoformat(entry.time) for entry in _since_recovery(entries)), default=LONG_AGO)


def _since_recovery(entries: Sequence[AuditEntry]) -> Sequence[AuditEntry]:
    """From the last line about a recovery of the ledger on; all lines where there is none."""
    lines = [place for place, entry in enumerate(entries) if _is_recovery(entry, "ledger")]
    return entries[lines[-1] :] if lines else entries


def _is_recovery(entry: AuditEntry, what: str) -> bool:
    return isinstance(entry.event, AuditRecovered) and entry.event.what == what


def _told(entries: Iterable[AuditEntry]) -> set[_Spending]:
    told = set()
    for entry in entries:
        match entry.event:
            case AuditReserved() as event:
                told.add(_Spending(event.plan))
            case RoundCharged() as event:
                told.add(_Spending(event.plan, event.round_number))
    return told


def _spending(row: Row) -> _Spending | None:
    match row.meaning:
        case Reserved() as made:
            return _Spending(made.plan_digest)
        case Committed() as begun:
            return _Spending(begun.plan_digest, begun.round_number)
        case _:
            return None


def _check_reply(entries: Sequence[AuditEntry], kept_reply: bytes | None) -> None:
    if kept_reply is None or any(_is_recovery(entry, "audit") for entry in entries):
        return
    digest = hashlib.sha256(open_envelope(kept_reply, len(kept_reply)).body).hexdigest()
    if all(entry.event.digest != digest for entry in entries if isinstance(entry.event, MessageOut)):
        raise RollbackError(
            "the audit log lacks the last reply that the inbox keeps: an older copy was put back", hint=_HINT
        )
