"""Every message that left, a line each, to be read by other programs or searched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from client.report_tables import MESSAGE_WORDS
from common.audit import AuditEntry, kind_of
from common.audit_events import MessageOut, MessageRepeated, PlanSeen

NOTHING = "-"
"""In place of a value that a message has not."""

AGAIN = "sent again"
"""In place of the class: the bytes of an earlier answer, unchanged."""


def message_lines(entries: Iterable[AuditEntry]) -> Iterator[str]:
    """Time, class, plan, round, bytes, digest, recipient and kind of each message, between tabs, in the log's order.

    Guarantees:
        One line for each time that a message was handed to the network, so also where one was sent again. No value has
        a tab or a line's end in it: the log takes none.

    Edge cases:
        The log keeps of a repeat its bytes, digest and recipient alone, and the digest is that of the sealed envelope.
        A plan is `NAME (DIGEST)` with 8 digits, or the digits alone where the log does not name it.

    Args:
        entries: A site's log, or what could be read of it.
    """
    names: dict[str, str] = {}
    for entry in entries:
        match entry.event:
            case PlanSeen(plan=plan, name=name):
                names[plan] = f"{name} ({plan[:8]})"
            case MessageOut() as out:
                yield "\t".join((entry.time, *_out(out, names)))
            case MessageRepeated(digest=digest, size_bytes=size_bytes, recipient=recipient):
                told = (AGAIN, NOTHING, NOTHING, str(size_bytes), digest, recipient, NOTHING)
                yield "\t".join((entry.time, *told))


def message_objects(entries: Iterable[AuditEntry]) -> Iterator[str]:
    """The same as JSON, an object a line: number, time and kind of the line in the log, and every field of it.

    Args:
        entries: A site's log, or what could be read of it.
    """
    for entry in entries:
        if isinstance(entry.event, MessageOut | MessageRepeated):
            fields: dict[str, Any] = entry.event.model_dump(mode="json")
            yield json.dumps({"number": entry.number, "time": entry.time, "kind": kind_of(entry.event), **fields})


def _out(event: MessageOut, names: Mapping[str, str]) -> tuple[str, ...]:
    return (
        event.release_class,
        names.get(event.plan, event.plan[:8]),
        str(event.round_number or NOTHING),
        str(event.size_bytes),
        event.digest,
        event.recipient,
        MESSAGE_WORDS.get(event.message, event.message),
    )
