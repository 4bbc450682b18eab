"""A list of checks that a doctor goes down: each is run, whatever the others found, and the worst finding counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from common.audit import AuditReport
from common.errors import CloisterError, ConfigError, IntegrityError, RollbackError, TransportError, TryAgainError
from common.findings import Finding, counted, times

_KINDS = {kind.exit_code: kind for kind in (ConfigError, TransportError, IntegrityError, RollbackError)}


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Args:
        subject: What is looked at, in a word or two; shown while it goes on.
        look: Finds; an error that it raises is a finding, too.
        exit_code: What a failure means where no error says so itself: 3, 4, 13 or 14.
    """

    subject: str
    look: Callable[[], Iterable[Finding]]
    exit_code: int = ConfigError.exit_code


@dataclass(frozen=True)
class Checked:
    """One finding, and what it means for the command.

    Attributes:
        finding: What was found.
        exit_code: 0 unless it is a failure.
        seconds: How long the check took that found it.
    """

    finding: Finding
    exit_code: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**vars(self.finding), "exit_code": self.exit_code, "seconds": round(self.seconds, 3)}


def run_checks(checks: Iterable[Check], on_begin: Callable[[str], None]) -> tuple[Checked, ...]:
    """Run every check in order.

    Guarantees:
        A check that breaks off with an error of ours, of the system or of an import does not keep the others from
        running. What another process holds at this moment is a warning: nothing is known to be wrong. So is what cannot
        be looked at for a cause that failed already, which is told once.

    Args:
        checks: What to look at.
        on_begin: Told each subject before it is looked at.
    """
    found: list[Checked] = []
    for check in checks:
        on_begin(check.subject)
        begun = time.monotonic()
        outcome = list(_findings(check))
        seconds = time.monotonic() - begun
        found += [_told_once(Checked(finding, code, seconds), found) for finding, code in outcome]
    return tuple(found)


def _told_once(one: Checked, before: Iterable[Checked]) -> Checked:
    """A failure, or that it cannot be looked at, where the same sentence failed before."""
    for other in before:
        if 0 < one.exit_code <= other.exit_code and one.finding.sentence == other.finding.sentence:
            mend = f"first mend `{other.finding.subject}`"
            return Checked(Finding("warn", one.finding.subject, "cannot be looked at", mend), 0, one.seconds)
    return one


def worst_code(checked: Iterable[Checked]) -> int:
    """0 when nothing failed, else the code of the worst kind: 14 before 13, 4 and 3."""
    return max((one.exit_code for one in checked), default=0)


def raise_worst(checked: tuple[Checked, ...]) -> None:
    """End a command as the worst failure says.

    Raises:
        ConfigError, TransportError, IntegrityError, RollbackError: When anything failed.
    """
    code = worst_code(checked)
    if code:
        failed = sum(one.exit_code > 0 for one in checked)
        rule = "1 check failed" if failed == 1 else f"{failed} checks failed"
        raise _KINDS[code](rule, hint="mend the lines marked fail, from the top")


def audit_log_findings(report: AuditReport) -> Iterator[Finding]:
    """What an audit log that holds together still has to tell."""
    yield Finding("pass", "audit log", f"{counted(report.head.number, 'line holds', 'lines hold')} together")
    if report.torn_bytes or report.anchor_behind:
        yield Finding("warn", "audit log", "a crash tore its end", "nothing: the next start mends it, and says so")
    if report.steps_back:
        sentence = f"the clock was moved back {times(report.steps_back)} between two lines"
        yield Finding("warn", "audit log", sentence, "let a time service keep the clock")


def _findings(check: Check) -> Iterator[tuple[Finding, int]]:
    try:
        for finding in check.look():
            yield finding, check.exit_code if finding.level == "fail" else 0
    except TryAgainError as error:
        yield Finding("warn", check.subject, error.message, error.hint), 0
    except CloisterError as error:
        code = error.exit_code if error.exit_code in _KINDS else check.exit_code
        yield Finding("fail", check.subject, _sentence(error), error.hint), code
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        yield (
            Finding("fail", check.subject, f"{place}{error.strerror or error}", "check the home folder"),
            check.exit_code,
        )
    except ImportError as error:
        hint = "install Cloister again, with its extra, in an environment of its own"
        yield Finding("fail", check.subject, f"a library cannot be loaded: {error.name}", hint), check.exit_code


def _sentence(error: CloisterError) -> str:
    problems = error.problems if isinstance(error, ConfigError) else ()
    return "; ".join([error.message, *map(str, problems)])
