import pytest

from common.audit import AuditReport
from common.chain import Head
from common.checkup import Check, audit_log_findings, raise_worst, run_checks, worst_code
from common.errors import (
    BudgetError,
    ConfigError,
    IntegrityError,
    Problem,
    RollbackError,
    TransportError,
    TryAgainError,
)
from common.findings import Finding

GOOD, BAD, SO_SO = (Finding(level, "thing", "found", "mend it") for level in ("pass", "fail", "warn"))


def outcome(look, exit_code: int = 3):
    (checked,) = run_checks([Check("thing", look, exit_code)], lambda _: None)
    return checked.finding.level, checked.exit_code


def raising(error: Exception):
    def look():
        raise error

    return look


def test_levels_and_codes() -> None:
    assert outcome(lambda: [GOOD]) == ("pass", 0)
    assert outcome(lambda: [SO_SO]) == ("warn", 0)
    assert outcome(lambda: [BAD], 13) == ("fail", 13)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("x"), ("fail", 3)),
        (TransportError("x"), ("fail", 4)),
        (IntegrityError("x"), ("fail", 13)),
        (RollbackError("x"), ("fail", 14)),
        (BudgetError("x"), ("fail", 13)),  # no kind of a doctor's: the check's own counts
        (TryAgainError("x"), ("warn", 0)),
        (OSError(5, "input/output error"), ("fail", 13)),
        (ImportError("x", name="torch"), ("fail", 13)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_a_finding_and_the_others_still_run(error: Exception, expected: tuple[str, int]) -> None:
    assert outcome(raising(error), 13) == expected
    found = run_checks([Check("one", raising(error)), Check("two", lambda: [GOOD])], lambda _: None)
    assert found[-1].finding == GOOD


def test_one_cause_is_told_once_and_the_others_wait_for_it() -> None:
    error, other = ConfigError("site.toml is not TOML", hint="mend it"), ConfigError("no key")
    checks = [Check("settings", raising(error)), Check("ledger", raising(error), 13), Check("keys", raising(other))]
    settings, ledger, keys = run_checks([*checks, Check("good", lambda: [GOOD])], lambda _: None)[:3]
    assert (settings.exit_code, keys.exit_code) == (3, 3)
    assert (ledger.finding.level, ledger.exit_code) == ("warn", 0)
    assert ledger.finding.mend == "first mend `settings`"


def test_an_error_half_way_keeps_what_was_found_before() -> None:
    def look():
        yield GOOD
        raise RollbackError("older", hint="mend")

    found = run_checks([Check("thing", look)], lambda _: None)
    assert [(one.finding.level, one.exit_code) for one in found] == [("pass", 0), ("fail", 14)]


def test_every_problem_of_a_config_is_told() -> None:
    error = ConfigError("the file does not fit", (Problem("a.b", "must be 1"), Problem("c", "is unknown")))
    (checked,) = run_checks([Check("settings", raising(error))], lambda _: None)
    assert checked.finding.sentence == "the file does not fit; a.b: must be 1; c: is unknown"


def test_progress_names_each_check_before_it_runs() -> None:
    told: list[str] = []
    run_checks([Check("one", lambda: [GOOD] if told == ["one"] else [BAD]), Check("two", list)], told.append)
    assert told == ["one", "two"]


def test_the_worst_kind_counts() -> None:
    looks = [Check("a", lambda: [BAD], 3), Check("b", raising(RollbackError("x"))), Check("c", lambda: [BAD], 4)]
    found = run_checks(looks, lambda _: None)
    assert worst_code(found) == 14
    with pytest.raises(RollbackError, match="3 checks failed"):
        raise_worst(found)
    with pytest.raises(TransportError, match="1 check failed"):
        raise_worst(found[2:])


def test_nothing_failed() -> None:
    found = run_checks([Check("a", lambda: [GOOD, SO_SO])], lambda _: None)
    assert worst_code(found) == worst_code(()) == 0
    raise_worst(found)


def test_json_has_every_part() -> None:
    (checked,) = run_checks([Check("a", lambda: [BAD], 4)], lambda _: None)
    kept = checked.as_json()
    assert kept.pop("seconds") >= 0
    assert kept == {"level": "fail", "subject": "thing", "sentence": "found", "mend": "mend it", "exit_code": 4}


@pytest.mark.parametrize(
    ("torn", "behind", "back", "levels"),
    [
        (0, False, 0, ["pass"]),
        (7, False, 0, ["pass", "warn"]),
        (0, True, 0, ["pass", "warn"]),
        (0, False, 2, ["pass", "warn"]),
        (7, True, 1, ["pass", "warn", "warn"]),
    ],
)
def test_what_a_sound_audit_log_tells(torn: int, behind: bool, back: int, levels: list[str]) -> None:
    report = AuditReport(Head(), (), {}, torn, behind, back)
    assert [finding.level for finding in audit_log_findings(report)] == levels


def test_one_line_and_one_step_are_told_in_the_singular() -> None:
    whole, back = audit_log_findings(AuditReport(Head(1), (), {}, 0, False, 1))
    assert whole.sentence == "1 line holds together"
    assert back.sentence == "the clock was moved back once between two lines"
