"""Do this hospital's records fit a plan? For the eyes of the hospital: counts stay on its screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from client.config import SiteConfig
from client.data.checks import check_records, check_step
from client.report import visible
from common.errors import DataError
from common.findings import Finding
from common.plan import Plan, Unit
from common.records.records import Records
from common.records.sources import occurring_labels, read_records, read_usable_records

_MANY_LABELS = 50
_OF_LABELS = frozenset({"labels", "balance"})


@dataclass(frozen=True)
class Fit:
    """How this hospital's records stand to a plan; for the eyes of the hospital, as all of it.

    Attributes:
        findings: As `check_data`.
        rows: Of all files; 0 also where the set-up keeps them from being read.
        usable: Those of them that would be trained on.
    """

    findings: tuple[Finding, ...]
    rows: int
    usable: int

    @property
    def has_failed(self) -> bool:
        """Whether a person should mend something before saying yes."""
        return not self.usable or any(finding.level == "fail" for finding in self.findings)


def check_data(config: SiteConfig, plan: Plan | None) -> tuple[Finding, ...]:
    """Read the records as training would, and say what stands in the way.

    Guarantees:
        No text, label of a row or patient id is in a finding: files, columns, rules, counts, shares, and what the plan
        itself says, with every letter to be seen. Nothing is kept, written or sent. This is where a person is told what
        does not fit: the node leaves such rows out, and says nothing that depends on them.

    Edge cases:
        Without a plan nothing is known about labels: those in the files are counted, and not named.

    Args:
        config: Where the records are, and what their columns are called.
        plan: What they shall fit; None checks what any plan would need.
    """
    labels = plan.task.labels if plan else sorted(occurring_labels(config.train_files, config.data.columns))
    try:
        records = read_records(config.train_files, config.data.columns, labels)
    except DataError as error:
        return _problems(error)
    return _findings(config, plan, records, labels)


def hold_records(config: SiteConfig, plan: Plan) -> Fit:
    """As `check_data`, with the number of rows that a training would use, counted as `client.study` reads them.

    Edge cases:
        A set-up that the node would refuse, such as a file that is not there or a plan that protects patients where no
        column names them, makes every row unusable: the node sets the plan's cost aside before it looks.
    """
    files, columns, labels = config.train_files, config.data.columns, plan.task.labels
    try:
        records, left_out = read_records(files, columns, labels), 0
        findings = _findings(config, plan, records, labels)
    except DataError as error:
        findings = _problems(error)
        try:
            reading = read_usable_records(files, columns, labels)
        except DataError:
            return Fit(findings, rows=0, usable=0)
        records, left_out = reading.records, reading.left_out
    is_refused = plan.privacy.unit == "patient" and columns.patient is None
    return Fit(findings, len(records) + left_out, 0 if is_refused else len(records))


def _problems(error: DataError) -> tuple[Finding, ...]:
    return _to_be_seen(Finding("fail", "files", str(problem), problem.hint) for problem in error.problems)


def _to_be_seen(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(replace(one, sentence=visible(one.sentence), mend=visible(one.mend)) for one in found)


def _findings(config: SiteConfig, plan: Plan | None, records: Records, labels: Sequence[str]) -> tuple[Finding, ...]:
    unit = plan.privacy.unit if plan else config.policy.units[0]
    found = check_records(records, labels, unit)
    if plan is None:
        named = tuple(finding for finding in found if finding.subject not in _OF_LABELS)
        return _to_be_seen((_amount(config, records, unit), _label_count(labels), *named))
    return _to_be_seen((_amount(config, records, unit), *found, *_steps(records, plan)))


def _amount(config: SiteConfig, records: Records, unit: Unit) -> Finding:
    files = len(config.train_files)
    sentence = f"{files} file{'s' if files != 1 else ''}, {len(records):,} rows of {records.unit_count(unit):,} {unit}s"
    return Finding("pass", "files", sentence)


def _label_count(labels: Sequence[str]) -> Finding:
    sentence = f"{len(labels):,} different ones; whether they are a plan's shows once there is one"
    if 2 <= len(labels) <= _MANY_LABELS:
        return Finding("pass", "labels", sentence)
    mend = "check `data.columns.label`: a plan has a few labels, and at least two"
    return Finding("warn", "labels", f"{len(labels):,} different ones", mend)


def _steps(records: Records, plan: Plan) -> tuple[Finding, ...]:
    """What a step draws; in mode distributed of all sites together, of which this one knows itself alone."""
    units = records.unit_count(plan.privacy.unit)
    if plan.mode == "per-site":
        return check_step(units, plan.privacy)
    drawn = f"a step draws {units * plan.privacy.sampling_rate:,.1f} of {units:,} {plan.privacy.unit}s here on average"
    alike = (
        replace(finding, subject=f"{finding.subject}, if all are alike")
        for finding in check_step(units * plan.sites, plan.privacy)
    )
    return (Finding("pass", "draw here", drawn), *alike)
