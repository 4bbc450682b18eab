"""The coordinator's public files as records, for a plan that is checked and for a run that judges by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from common.columns import DataColumns
from common.errors import DataError
from common.findings import Finding, counted
from common.plan import Plan
from common.records.records import Records
from common.records.sources import read_records
from server.config import PublicDataConfig

_SUBJECT = "public data"
_ELSE = "[public] in coordinator.toml names the file"


def public_records(config: PublicDataConfig, files: tuple[Path, ...], labels: Sequence[str]) -> Records:
    """Read the files of one public set.

    Args:
        config: Says what the columns are called.
        files: Of the set; at least one.
        labels: The plan's.

    Raises:
        DataError: When a file cannot be read or does not fit the labels; names file, column, rule and number of rows.
    """
    columns = DataColumns(text=config.columns.text, label=config.columns.label, patient=None)
    return read_records(files, columns, labels)


def check_public_data(plan: Plan, config: PublicDataConfig) -> Iterator[Finding]:
    """Whether anybody will know how good the result is: the files are read as the run will read them.

    Guarantees:
        What would end the run for its public files is a finding that fails, with file, column, rule and number of
        rows, and no value of a row.
    """
    files, tests = config.validation_files, config.test_files
    if plan.stopping.patience_rounds and not files:
        mend = "name public files in public.validation of coordinator.toml, or set stopping.patience_rounds to 0"
        yield Finding("fail", _SUBJECT, "the plan stops by a validation loss, and there is no validation set", mend)
    elif not files and not tests:
        mend = "name public files in [public] of coordinator.toml, if there are any"
        yield Finding("warn", _SUBJECT, "none: nobody will see how good the model is", mend)
    unfit = [*_unfit(plan, config, files), *_unfit(plan, config, tests)]
    yield from unfit
    if (files or tests) and not unfit:
        sentence = f"{counted(len(files), 'file')} to judge rounds by, {len(tests)} to measure the result on"
        yield Finding("pass", _SUBJECT, sentence)


def _unfit(plan: Plan, config: PublicDataConfig, files: tuple[Path, ...]) -> Iterator[Finding]:
    if not files:
        return
    try:
        public_records(config, files, plan.task.labels)
    except DataError as error:
        for problem in error.problems:
            yield Finding("fail", _SUBJECT, str(problem), f"{problem.hint}; {_ELSE}" if problem.hint else _ELSE)
