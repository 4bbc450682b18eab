import json
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from common.audit import EVENT_KINDS, AuditEntry, AuditLog, kind_of, read_audit, recover_audit, verify_audit
from common.audit_events import AuditEvent, Paused, Recovered, Resumed, Started
from common.canonical import canonical_bytes, file_digest
from common.chain_file import ChainFile
from common.errors import IntegrityError, RollbackError, TryAgainError
from common.identity import new_identity, public_name
from tests.audit_events import EVENTS

IDENTITY = new_identity()
MOMENT = datetime(2026, 11, 21, 15, 4, 5, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "keys").mkdir()
    return tmp_path


def files(home):
    return home / "audit.jsonl", home / "keys" / "audit.anchor"


def opened(home, identity=IDENTITY, **more):
    return AuditLog(*files(home), identity, **more)


def verified(home):
    return verify_audit(*files(home), public_name(IDENTITY))


def test_what_is_recorded_is_what_is_read(home):
    log = opened(home, clock=lambda: MOMENT)
    recorded = [log.record(event) for event in EVENTS]
    report = verified(home)
    assert report.entries == tuple(recorded)
    assert report.entries[0] == AuditEntry(1, "2026-11-21T15:04:05.000Z", EVENTS[0])
    assert [entry.event for entry in report.entries] == list(EVENTS)
    assert report.counts == dict.fromkeys(EVENT_KINDS, 1)
    assert (report.head, report.torn_bytes, report.anchor_behind, report.steps_back) == (log.head, 0, False, 0)


def test_the_kinds_are_the_list(home):
    assert list(EVENT_KINDS.values()) == list(get_args(AuditEvent))
    assert {kind_of(event): type(event) for event in EVENTS} == dict(EVENT_KINDS)
    assert {"message-out", "refused", "gateway-access", "rollback-detected"} <= set(EVENT_KINDS)


class PausedWithNote(Paused):
    note: str


@pytest.mark.parametrize("event", [PausedWithNote(by="anna", note="free text"), "a line", None, {"kind": "paused"}])
def test_what_is_not_on_the_list_is_not_recorded(home, event):
    log = opened(home)
    with pytest.raises(IntegrityError, match="is not on the list of events"):
        log.record(event)
    assert verified(home).entries == ()


@pytest.mark.parametrize(
    ("kind", "fields", "rule"),
    [
        ("patient-seen", {}, "line 1 has an event of no known kind"),
        ("paused", {}, "line 1 has fields that a paused does not have"),
        ("paused", {"by": "anna", "note": "free text"}, "line 1 has fields that a paused does not have"),
        ("paused", {"by": "<b>"}, "line 1 has fields that a paused does not have"),
    ],
)
def test_a_signed_line_that_is_no_event_shows(home, kind, fields, rule):
    ChainFile(*files(home), IDENTITY, purpose="audit log").append(kind, fields)
    with pytest.raises(IntegrityError, match=rule):
        verified(home)


def test_a_clock_that_was_moved_shows_and_alarms_nobody(home):
    moments = iter([MOMENT, MOMENT - timedelta(minutes=10), MOMENT])
    log = opened(home, clock=lambda: next(moments))
    for event in EVENTS[:3]:
        log.record(event)
    assert verified(home).steps_back == 1
    assert opened(home).head == log.head


def written(home, lines):
    files(home)[0].write_bytes(b"".join(lines))


def edited(line, **fields):
    values = json.loads(line)
    return canonical_bytes({**values, "fields": {**values["fields"], **fields}}) + b"\n"


TAMPERED = {
    "edit": lambda a, b, c: [a, edited(b, by="berta"), c],
    "cut at the start": lambda a, b, c: [b, c],
    "cut in the middle": lambda a, b, c: [a, c],
    "cut at the end": lambda a, b, c: [a, b],
    "all cut": lambda a, b, c: [],
    "swap": lambda a, b, c: [b, a, c],
    "insertion": lambda a, b, c: [a, a, b, c],
    "repetition at the end": lambda a, b, c: [a, b, c, c],
    "a blank line": lambda a, b, c: [a, b"\n", b, c],
    "no newline at the end": lambda a, b, c: [a, b, c[:-1]],
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_every_change_is_seen_by_verify_and_at_the_next_opening(home, tamper):
    log = opened(home)
    for event in (Started(part="site", version="0.1.0"), Paused(by="anna"), Resumed(by="anna")):
        log.record(event)
    assert len(verified(home).entries) == opened(home).head.number == 3
    written(home, tamper(*files(home)[0].read_bytes().splitlines(keepends=True)))
    with pytest.raises((IntegrityError, RollbackError)):
        verified(home)
    with pytest.raises((IntegrityError, RollbackError)):
        opened(home)


def test_an_older_copy_is_seen(home):
    log = opened(home)
    log.record(Paused(by="anna"))
    path, anchor = files(home)
    old_log, old_anchor = path.read_bytes(), anchor.read_bytes()
    log.record(Resumed(by="anna"))
    log.record(Paused(by="anna"))
    new_log = path.read_bytes()
    path.write_bytes(old_log)
    with pytest.raises(RollbackError, match="lines at the end are missing"):
        verified(home)
    path.write_bytes(new_log)
    anchor.write_bytes(old_anchor)
    with pytest.raises(RollbackError, match="an older copy was put back"):
        opened(home)


def test_a_log_that_must_exist_is_not_begun(home):
    with pytest.raises(RollbackError, match="is missing"):
        opened(home, must_exist=True)
    opened(home)
    opened(home, must_exist=True)


@pytest.mark.parametrize("lost", ["log", "anchor", "both", "neither"])
def test_recovery_keeps_what_was_there_and_says_so(home, lost):
    opened(home).record(Paused(by="anna"))
    path, anchor = files(home)
    digest = None if lost in {"log", "both"} else file_digest(path)
    for name, file in (("log", path), ("anchor", anchor)):
        if lost in {name, "both"}:
            file.unlink()
    log = recover_audit(path, anchor, IDENTITY, by="Dr. Müller", clock=lambda: MOMENT)
    assert [entry.event for entry in verified(home).entries] == [
        Recovered(what="audit", by="Dr. Müller", digest=digest)
    ]
    assert log.head.number == 1
    kept = path.with_name("audit.jsonl.20261121T150405Z")
    assert (file_digest(kept) if kept.exists() else None) == digest
    assert anchor.with_name("audit.anchor.20261121T150405Z").exists() == (lost in {"log", "neither"})


def test_what_was_put_aside_is_never_written_over(home):
    path, anchor = files(home)
    opened(home).record(Paused(by="anna"))
    recover_audit(path, anchor, IDENTITY, by="anna", clock=lambda: MOMENT)
    kept = path.read_bytes()
    with pytest.raises(TryAgainError, match="is there already"):
        recover_audit(path, anchor, IDENTITY, by="anna", clock=lambda: MOMENT)
    assert path.read_bytes() == kept


def test_a_reader_gets_what_can_be_read_and_the_fault(home):
    for event in EVENTS[:4]:
        opened(home).record(event)
    reading = read_audit(*files(home), public_name(IDENTITY))
    assert ([entry.event for entry in reading.entries], reading.fault) == (list(EVENTS[:4]), None)
    lines = files(home)[0].read_bytes().splitlines(keepends=True)
    written(home, [*lines[:2], edited(lines[2], by="berta"), lines[3]])
    reading = read_audit(*files(home), public_name(IDENTITY))
    assert [entry.event for entry in reading.entries] == list(EVENTS[:2])
    assert (type(reading.fault), reading.fault.message[:7]) == (IntegrityError, "line 3:")
    written(home, lines[:3])
    reading = read_audit(*files(home), public_name(IDENTITY))
    assert [entry.event for entry in reading.entries] == list(EVENTS[:3])
    assert type(reading.fault) is RollbackError
