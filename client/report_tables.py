"""What an audit log says, put together for a reader: plans, messages, refusals, people, incidents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from common.audit import AuditEntry
from common.audit_events import (
    AdminCommand,
    ApprovalWithdrawn,
    Approved,
    DamageDetected,
    Joined,
    Mended,
    MessageOut,
    MessageRefused,
    MessageRepeated,
    Paused,
    PlanSeen,
    Recovered,
    Refused,
    Reserved,
    Resumed,
    RollbackDetected,
    RoundCharged,
    RunEnded,
)
from common.audit_fields import ReleaseClass
from common.reasons import in_words

CLASS_WORDS: Mapping[ReleaseClass, str] = {
    "noised and charged": "the output of a mechanism with noise, paid for from the budget",
    "masked": "paid for from the budget, and readable in the sum over the sites alone",
    "key material": "keys, shares and signatures: random, and about nobody",
    "public": "names, digests, round numbers, codes: nothing about patients",
}
"""Release classes in the words of someone who reads the page, the most revealing first."""

MESSAGE_WORDS: Mapping[str, str] = {
    "RoundReply": "noised update of a round",
    "MaskedReply": "masked numbers of a round",
    "Refusal": "refusal of a request",
    "SessionKeys": "this site's keys of a session",
    "SessionShares": "sealed shares for neighbours",
    "Consent": "consent to a set of survivors",
    "Reveal": "shares that open a sum",
    "PlanAnswer": "answer to a plan",
    "BaseNeed": "which piece of the base model is lacking",
    "RunNoted": "receipt of the end of a run",
}

_INTAKE_WORDS = {"not-signed": "the pinned coordinator has not signed it"}
_KEPT_WORDS = {"audit": "the audit log", "run": "a run's folder", "inbox": "the record of the last request"}
NO_PLAN = "(no plan)"


@dataclass(frozen=True)
class Seen:
    """How often something happened, and its first and last time."""

    times: int
    first: str
    last: str


@dataclass
class PlanRow:
    """One plan, as far as the log tells of it."""

    digest: str
    name: str = ""
    coordinator: str = ""
    seen: str = ""
    consent: list[tuple[str, str, str]] = field(default_factory=list)
    reserved: Reserved | None = None
    rounds_charged: int = 0
    outcome: str = ""

    @property
    def label(self) -> str:
        """Name and beginning of the digest, or the latter alone."""
        return f"{self.name} ({self.digest[:8]})" if self.name else self.digest[:8]

    @property
    def agreed(self) -> str:
        """Whether a person agreed to it, and who did last."""
        return " by ".join(self.consent[-1][:2]) if self.consent else "approved by nobody"


@dataclass(frozen=True)
class MessageRow:
    """All messages of one kind and class under one plan."""

    plan: str
    message: str
    release_class: ReleaseClass
    recipient: str
    bytes_by_class: Mapping[ReleaseClass, int]
    size_bytes: int
    seen: Seen


@dataclass(frozen=True)
class ReasonRow:
    """One reason, under one plan, for which something was refused."""

    plan: str
    code: str
    reason: str
    seen: Seen


@dataclass(frozen=True)
class Happening:
    """One thing that a person did, or that was found."""

    time: str
    who: str
    what: str


@dataclass(frozen=True)
class Tables:
    """Everything that the page shows of the log."""

    plans: tuple[PlanRow, ...]
    messages: tuple[MessageRow, ...]
    bytes_by_class: Mapping[ReleaseClass, int]
    repeated: int
    refusals: tuple[ReasonRow, ...]
    refused_in: tuple[ReasonRow, ...]
    people: tuple[Happening, ...]
    incidents: tuple[Happening, ...]


def tables(entries: Sequence[AuditEntry]) -> Tables:
    """Put a log together.

    Guarantees:
        Every message out is in one row of `messages`, and every byte of it in `bytes_by_class`.

    Args:
        entries: In the order of the log.
    """
    plans = _plans(entries)
    labels = {digest: row.label for digest, row in plans.items()}
    messages = _messages(entries, labels)
    return Tables(
        plans=tuple(plans.values()),
        messages=messages,
        bytes_by_class=_summed(row.bytes_by_class for row in messages),
        repeated=sum(isinstance(entry.event, MessageRepeated) for entry in entries),
        refusals=_refusals(entries, labels),
        refused_in=_refused_in(entries),
        people=_happenings(entries, _DEEDS),
        incidents=_happenings(entries, _INCIDENTS),
    )


# --- plans ---


def _plans(entries: Iterable[AuditEntry]) -> dict[str, PlanRow]:
    rows: dict[str, PlanRow] = {}
    for entry in entries:
        plan = getattr(entry.event, "plan", None)
        if plan is not None:
            _take(rows.setdefault(plan, PlanRow(plan)), entry)
    return rows


def _take(row: PlanRow, entry: AuditEntry) -> None:
    row.seen = row.seen or entry.time
    match entry.event:
        case PlanSeen(name=name, coordinator=coordinator):
            row.name, row.coordinator = name, coordinator
        case Approved(by=by):
            row.consent.append(("approved", by, entry.time))
        case ApprovalWithdrawn(by=by):
            row.consent.append(("approval withdrawn", by, entry.time))
        case Reserved() as reserved:
            row.reserved = reserved
        case RoundCharged():
            row.rounds_charged += 1
        case RunEnded(outcome=outcome):
            row.outcome = outcome


# --- messages and refusals ---


def _messages(entries: Iterable[AuditEntry], labels: Mapping[str, str]) -> tuple[MessageRow, ...]:
    out = [(entry, entry.event) for entry in entries if isinstance(entry.event, MessageOut)]
    groups = _grouped(out, lambda pair: (pair[1].plan, pair[1].message, pair[1].release_class, pair[1].recipient))
    return tuple(
        MessageRow(
            plan=labels[plan],
            message=MESSAGE_WORDS.get(message, message),
            release_class=release_class,
            recipient=recipient,
            bytes_by_class=_summed(event.bytes_by_class for _, event in pairs),
            size_bytes=sum(event.size_bytes for _, event in pairs),
            seen=_seen([entry for entry, _ in pairs]),
        )
        for (plan, message, release_class, recipient), pairs in groups.items()
    )


def _summed(counts: Iterable[Mapping[ReleaseClass, int]]) -> Mapping[ReleaseClass, int]:
    listed = list(counts)
    return {name: sum(count.get(name, 0) for count in listed) for name in CLASS_WORDS}


def _refusals(entries: Iterable[AuditEntry], labels: Mapping[str, str]) -> tuple[ReasonRow, ...]:
    found = [
        (entry, NO_PLAN if entry.event.plan is None else labels[entry.event.plan], code)
        for entry in entries
        if isinstance(entry.event, Refused)
        for code in entry.event.codes
    ]
    return _reasons(found)


def _refused_in(entries: Iterable[AuditEntry]) -> tuple[ReasonRow, ...]:
    return _reasons([(entry, "", entry.event.code) for entry in entries if isinstance(entry.event, MessageRefused)])


def _reasons(found: Sequence[tuple[AuditEntry, str, str]]) -> tuple[ReasonRow, ...]:
    groups = _grouped(found, lambda item: item[1:])
    return tuple(
        ReasonRow(plan, code, _INTAKE_WORDS.get(code) or in_words(code), _seen([item[0] for item in items]))
        for (plan, code), items in groups.items()
    )


Item = TypeVar("Item")
Key = TypeVar("Key")


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by key, keys in the order in which they first come."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _seen(entries: Sequence[AuditEntry]) -> Seen:
    return Seen(len(entries), entries[0].time, entries[-1].time)


# --- people and incidents ---


def _happenings(entries: Iterable[AuditEntry], words: Mapping[type[Any], Telling]) -> tuple[Happening, ...]:
    told = ((entry, words.get(type(entry.event))) for entry in entries)
    return tuple(
        Happening(entry.time, getattr(entry.event, "by", ""), tell(entry.event))
        for entry, tell in told
        if tell is not None
    )


def _command(event: AdminCommand) -> str:
    end = f", which ended with code {event.exit_code}" if event.exit_code else ""
    return f"gave the command “{event.command}”{end}"


def _kept(what: str) -> str:
    return _KEPT_WORDS.get(what, f"the {what}")


Telling = Callable[[Any], str]

_DEEDS: Mapping[type[Any], Telling] = {
    Joined: lambda event: f"accepted the invitation of federation {event.federation[:8]}",
    Approved: lambda event: f"approved plan {event.plan[:8]}",
    ApprovalWithdrawn: lambda event: f"withdrew the approval of plan {event.plan[:8]}",
    AdminCommand: _command,
    Paused: lambda _: "paused this site",
    Resumed: lambda _: "ended the pause",
    Recovered: lambda event: f"let work go on after the loss of {_kept(event.what)}",
}
_INCIDENTS: Mapping[type[Any], Telling] = {
    RollbackDetected: lambda event: f"an older copy of {_kept(event.what)} was found",
    DamageDetected: lambda event: f"{_kept(event.what)} was found damaged",
    Mended: lambda event: f"a line of the audit log that a crash had torn after {event.size_bytes} bytes was taken off",
}
