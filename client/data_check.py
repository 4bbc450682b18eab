"""Do this hospital's records fit a plan? For the eyes of the hospital: counts stay on its screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from client.config import SiteConfig
from client.data.checks import check_records, check_step
from client.report import visible
from common.errors import DataError
from common.findings import Finding
from common.plan import Plan, Unit
from common.records.records import Records
from common.records.sources import occurring_labels, read_records

_MANY_LABELS = 50
_OF_LABELS = frozenset({"labels", "balance"})


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
    found = _findings(config, plan)
    return tuple(replace(one, sentence=visible(one.sentence), mend=visible(one.mend)) for one in found)


def _findings(config: SiteConfig, plan: Plan | None) -> tuple[Finding, ...]:
    labels = plan.task.labels if plan else sorted(occurring_labels(config.train_files, config.data.columns))
    unit = plan.privacy.unit if plan else config.policy.units[0]
    try:
        records = read_records(config.train_files, config.data.columns, labels)
    except DataError as error:
        return tuple(Finding("fail", "files", str(problem), problem.hint) for problem in error.problems)
    found = check_records(records, labels, unit)
    if plan is None:
        named = tuple(finding for finding in found if finding.subject not in _OF_LABELS)
        return (_amount(config, records, unit), _label_count(labels), *named)
    return (_amount(config, records, unit), *found, *_steps(records, plan))


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
