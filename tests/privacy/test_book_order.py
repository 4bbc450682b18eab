"""Books are compared by the order of their own lines, whatever the clock said."""

from datetime import UTC, datetime, timedelta

import pytest

from client.ledger.rows import Committed, Opened, Recovered, Reserved, new_row
from client.rollback import check_books, latest_moment
from common.audit import AuditEntry
from common.audit_events import Recovered as AuditRecovered
from common.audit_events import Reserved as AuditReserved
from common.audit_events import RoundCharged
from common.errors import RollbackError
from common.identity import new_identity, public_name

IDENTITY = new_identity()
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
AHEAD = NOW + timedelta(days=30)
OLD, NEW = "a" * 64, "b" * 64
OPENED = Opened(ledger="1" * 64, site=public_name(IDENTITY), host="2" * 64)
RECOVERED = Recovered(reason="lost", finding="missing")


def reserved(plan):
    mechanism = {"unit": "patient"}
    return Reserved(
        plan_digest=plan, plan_name="p", coordinator="c" * 64, dataset="records", unit="patient", rounds=3, cost=0.1,
        mechanism=mechanism,
    )  # fmt: skip


def begun(plan, number=1):
    return Committed(plan_digest=plan, round_number=number, order_digest="d" * 64)


def ledger(*contents, when=NOW):
    rows = []
    for content in (OPENED, *contents):
        rows.append(new_row(rows[-1] if rows else None, content, when, IDENTITY))
    return rows


def log(*events, times=None):
    moments = times or [NOW] * len(events)
    return [
        AuditEntry(number, moment.isoformat().replace("+00:00", "Z"), event)
        for number, (event, moment) in enumerate(zip(events, moments, strict=True), start=1)
    ]


def told(plan):
    return AuditReserved(plan=plan, dataset="records", unit="patient", rounds=3, cost=0.2)


def charged(plan, number=1):
    return RoundCharged(plan=plan, round_number=number, order="d" * 64)


LEDGER_LOST = AuditRecovered(what="ledger", by="anna")


def test_a_clock_that_ran_ahead_before_a_recovery_shuts_nobody_out():
    """It was compared by the clock once: the node never opened again."""
    entries = log(told(OLD), charged(OLD), LEDGER_LOST, times=[AHEAD, AHEAD, NOW])
    assert check_books(entries, ledger(RECOVERED), None) == ()


def test_a_clock_that_ran_behind_hides_no_ledger_that_was_put_back():
    entries = log(LEDGER_LOST, told(NEW), charged(NEW), times=[NOW, NOW - timedelta(days=9), NOW - timedelta(days=9)])
    assert check_books(entries, ledger(RECOVERED, reserved(NEW), begun(NEW)), None) == ()
    for older in (ledger(RECOVERED), ledger(RECOVERED, reserved(NEW))):
        with pytest.raises(RollbackError, match="the ledger lacks"):
            check_books(entries, older, None)


def test_a_recovery_whose_line_was_lost_is_done_again():
    with pytest.raises(RollbackError, match="the ledger lacks"):
        check_books(log(told(OLD)), ledger(RECOVERED), None)


@pytest.mark.parametrize("when", [NOW - timedelta(days=9), NOW, AHEAD])
def test_the_last_spending_may_lack_its_line_and_an_earlier_one_may_not(when):
    rows = ledger(reserved(NEW), begun(NEW), begun(NEW, 2), when=when)
    assert check_books(log(told(NEW), charged(NEW)), rows, None) == (charged(NEW, 2),)
    with pytest.raises(RollbackError, match="the audit log lacks"):
        check_books(log(told(NEW), charged(NEW, 2)), rows, None)


def test_an_audit_log_that_was_begun_anew_with_the_ledger_is_of_its_time():
    entries = log(AuditRecovered(what="audit", by="anna"), LEDGER_LOST)
    assert check_books(entries, ledger(RECOVERED), None) == ()
    assert check_books(entries, ledger(RECOVERED, reserved(NEW)), None) == (
        told(NEW).model_copy(update={"cost": 0.100001}),
    )


def test_the_latest_moment_forgives_what_was_before_a_recovery():
    assert latest_moment(log(told(OLD), charged(OLD), times=[AHEAD, NOW])) == AHEAD
    assert latest_moment(log(told(OLD), LEDGER_LOST, charged(NEW), times=[AHEAD, NOW, NOW])) == NOW
    assert latest_moment([]) < NOW
