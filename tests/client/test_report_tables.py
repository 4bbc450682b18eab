from typing import get_args

from client.outbox import RELEASE_CLASSES
from client.report_tables import CLASS_WORDS, MESSAGE_WORDS, NO_PLAN, Happening, Seen, tables
from common.audit import AuditEntry
from common.audit_events import (
    AdminCommand,
    ApprovalWithdrawn,
    Approved,
    DamageDetected,
    MessageOut,
    MessageRefused,
    PlanSeen,
    Refused,
    RollbackDetected,
    RoundCharged,
)
from common.audit_fields import ReleaseClass
from tests.audit_events import DIGEST, EVENTS, KEY, MESSAGE_OUT, OTHER_PLAN, PLAN


def log(*events):
    return [AuditEntry(number, f"2026-11-21T15:04:{number:02}.000Z", event) for number, event in enumerate(events, 1)]


def at(second):
    return f"2026-11-21T15:04:{second:02}.000Z"


def test_every_class_and_every_message_has_words():
    assert set(CLASS_WORDS) == set(get_args(ReleaseClass))
    assert set(MESSAGE_WORDS) == {kind.__name__ for kind in RELEASE_CLASSES}


def test_an_empty_log_gives_empty_tables():
    empty = tables([])
    assert empty.bytes_by_class == dict.fromkeys(CLASS_WORDS, 0)
    assert (empty.plans, empty.messages, empty.refusals, empty.refused_in, empty.people, empty.incidents) == ((),) * 6


def test_a_plan_is_told_from_first_sight_to_its_end():
    (row,) = tables(log(*EVENTS)).plans
    assert (row.digest, row.name, row.coordinator, row.seen) == (PLAN, "adverse-events", KEY, at(4))
    assert row.consent == [("approved", "Dr. Müller", at(6)), ("approval withdrawn", "anna", at(14))]
    assert (row.reserved.cost, row.rounds_charged, row.outcome) == (1.25, 1, "finished")
    assert (row.label, row.agreed) == ("adverse-events (abababab)", "approval withdrawn by anna")


def test_a_plan_that_nobody_saw_or_approved_is_shown_by_its_digest():
    (row,) = tables(log(RoundCharged(plan=OTHER_PLAN, round_number=1, order=DIGEST))).plans
    assert (row.label, row.agreed, row.seen) == ("cdcdcdcd", "approved by nobody", at(1))


def message(**changes):
    return MessageOut.model_validate({**MESSAGE_OUT.model_dump(), **changes})


def test_messages_are_counted_by_plan_kind_and_class():
    """Three masked replies and a consent under one plan, one public answer under another; added up by hand."""
    consent = {"message": "Consent", "release_class": "key material", "size_bytes": 70}
    found = tables(
        log(
            message(),
            message(round_number=2),
            message(**consent, bytes_by_class={"key material": 64, "public": 6}),
            message(round_number=3),
            message(
                plan=OTHER_PLAN,
                message="PlanAnswer",
                release_class="public",
                bytes_by_class={"public": 5},
                size_bytes=5,
                recipient="relay",
            ),
            PlanSeen(plan=PLAN, name="study", coordinator=KEY),
        )
    )
    rows = [(row.plan, row.message, row.release_class, row.size_bytes, row.seen.times) for row in found.messages]
    assert rows == [
        ("study (abababab)", "masked numbers of a round", "masked", 39, 3),
        ("study (abababab)", "consent to a set of survivors", "key material", 70, 1),
        ("cdcdcdcd", "answer to a plan", "public", 5, 1),
    ]
    assert found.messages[0].seen == Seen(3, at(1), at(4))
    assert found.messages[0].bytes_by_class == {"noised and charged": 0, "masked": 30, "key material": 0, "public": 9}
    assert [row.recipient for row in found.messages] == ["coordinator", "coordinator", "relay"]
    assert found.bytes_by_class == {"noised and charged": 0, "masked": 30, "key material": 64, "public": 20}


def test_refusals_are_counted_by_plan_and_reason():
    found = tables(
        log(
            Refused(plan=PLAN, codes=("not-approved", "too-few-sites")),
            Refused(plan=PLAN, codes=("not-approved",)),
            Refused(plan=None, codes=("malformed",)),
            MessageRefused(code="not-signed", size_bytes=9, digest=DIGEST),
            MessageRefused(code="not-signed", size_bytes=9, digest=DIGEST),
            MessageRefused(code="of-tomorrow", size_bytes=9, digest=DIGEST),
        )
    )
    assert [(row.plan, row.code, row.reason, row.seen) for row in found.refusals] == [
        ("abababab", "not-approved", "nobody at this site has approved the plan yet", Seen(2, at(1), at(2))),
        ("abababab", "too-few-sites", "too few sites take part", Seen(1, at(1), at(1))),
        (NO_PLAN, "malformed", "the request could not be read", Seen(1, at(3), at(3))),
    ]
    assert [(row.reason, row.seen.times) for row in found.refused_in] == [
        ("the pinned coordinator has not signed it", 2),
        ("a reason that this version does not know (of-tomorrow)", 1),
    ]


def test_people_and_incidents_are_told_in_order():
    found = tables(
        log(
            Approved(plan=PLAN, by="anna"),
            AdminCommand(command="data check", by="berta", exit_code=3),
            AdminCommand(command="approve", by="anna"),
            ApprovalWithdrawn(plan=PLAN, by="berta"),
            RollbackDetected(what="ledger"),
            DamageDetected(what="run"),
        )
    )
    assert found.people == (
        Happening(at(1), "anna", "approved plan abababab"),
        Happening(at(2), "berta", "gave the command “data check”, which ended with code 3"),
        Happening(at(3), "anna", "gave the command “approve”"),
        Happening(at(4), "berta", "withdrew the approval of plan abababab"),
    )
    assert found.incidents == (
        Happening(at(5), "", "an older copy of the ledger was found"),
        Happening(at(6), "", "a run's folder was found damaged"),
    )


def test_every_act_of_a_person_is_told():
    events = [event for event in EVENTS if hasattr(event, "by")]
    coordinators = {"Enrolled", "Withdrawn", "PlanSigned"}  # a site's log has none of these
    told = tables(log(*events)).people
    assert len(told) == len([event for event in events if type(event).__name__ not in coordinators])
