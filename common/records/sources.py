"""Data files in, `Records` out: every problem of all files at once, and never a value of a row."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.columns import DataColumns
from common.errors import DataError, Problem
from common.records.records import Records, build_records
from common.records.tables import Table, read_table, rows_in_words

_LONGEST_NAME = 64
_MEND_ROWS = "mend or remove these rows"


@dataclass(repr=False)
class _Found:
    """Rows and problems gathered over all files."""

    texts: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_records(paths: Sequence[Path], columns: DataColumns, labels: Sequence[str]) -> Records:
    """Read all files as one data set.

    Guarantees:
        Either every row of every file is usable, or one `DataError` names every problem by file, column, rule and
        number of rows. Neither it nor its causes hold a value of a row.
    Edge cases:
        Labels and patient ids may be text, whole numbers or booleans, and are compared as text without outer spaces:
        1, 1.0 (how a table with gaps stores 1) and "1" are the same. The same id in two files is the same patient.

    Args:
        paths: Files ending in .csv, .jsonl, .ndjson or .parquet.
        columns: The names of the columns; others are ignored.
        labels: The plan's labels in their order.

    Raises:
        DataError: Listing every problem.
    """
    found = _Found()
    for path in paths:
        _read_file(path, columns, labels, found)
    found.problems += [Problem(str(path), "is listed more than once", hint="list it once") for path in _repeated(paths)]
    if not paths:
        found.problems.append(Problem("data files", "none is given", hint="name at least one file"))
    if found.problems:
        count = len(found.problems)
        raise DataError(f"the data cannot be used: {count} problem{'s' if count != 1 else ''}", tuple(found.problems))
    return build_records(found.texts, found.labels, None if columns.patient is None else found.patients)


def occurring_labels(paths: Sequence[Path], columns: DataColumns) -> frozenset[str]:
    """The labels in all files that can be read, as `read_records` compares them, for checks before there is a plan.

    They are values of rows: count them, and show them to nobody.
    """
    tables = (read_table(path, (columns.label,)) for path in paths)
    values = (table.columns.get(columns.label, ()) for table in tables if isinstance(table, Table))
    names = (_name(value) for column in values for value in column)
    return frozenset(name for name in names if name)


def _repeated(paths: Sequence[Path]) -> list[Path]:
    resolved = [path.absolute() for path in paths]
    return [path for index, path in enumerate(paths) if resolved[index] in resolved[:index]]


def _read_file(path: Path, columns: DataColumns, labels: Sequence[str], found: _Found) -> None:
    table = read_table(path, columns.names)
    if isinstance(table, Problem):
        found.problems.append(table)
        return
    found.problems += table.broken
    if not table.rows:
        if not table.broken:
            found.problems.append(Problem(str(path), "has no rows", hint="remove it from the list, or fill it"))
        return
    found.problems += _column_problems(path, table, columns.names)
    readers = ((columns.text, found.texts, _texts), (columns.patient, found.patients, _patient_ids))
    for name, target, reader in readers:
        if name is not None and name in table.columns:
            target.extend(reader(_where(path, name), table.columns[name], found.problems))
    if columns.label in table.columns:
        names = _names(_where(path, columns.label), table.columns[columns.label], found.problems)
        found.labels += _label_indices(_where(path, columns.label), names, labels, found.problems)


def _where(path: Path, column: str) -> str:
    return f"{path}, column `{column}`"


def _column_problems(path: Path, table: Table, wanted: Sequence[str]) -> Iterator[Problem]:
    for name in wanted:
        if name not in table.names:
            yield Problem(_where(path, name), "is missing", hint=_closest_column(name, table.names, wanted))
        elif table.names.count(name) > 1:
            yield Problem(_where(path, name), "is there more than once", hint="rename or remove one of them")


def _closest_column(name: str, existing: Iterable[str], wanted: Sequence[str]) -> str:
    """The column that is probably meant.

    Without a header line the first row is taken for one, so that a "column name" may be a patient's value. A name is
    shown only if it is the wanted one but for case and punctuation, or if another wanted column proves the header.
    """
    for other in existing:
        if _plain(other) == _plain(name):
            return f"did you mean `{other}`?"
    free = [other for other in existing if other not in wanted and len(other) <= _LONGEST_NAME]
    close = difflib.get_close_matches(name, free, n=1) if set(wanted) & set(existing) else []
    if close:
        return f"did you mean `{close[0]}`?"
    return (
        "name the right column in the config; a CSV file needs a first line of column names, with commas between them"
    )


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _texts(where: str, values: Sequence[object], problems: list[Problem]) -> list[str]:
    texts = [value for value in values if isinstance(value, str)]
    missing = sum(_is_missing(value) for value in values)
    empty = sum(not text.strip() for text in texts)
    damaged = sum(not _is_unicode(text) for text in texts)
    problems += _row_problems(where, "is empty", missing + empty)
    problems += _row_problems(where, "is not text", len(values) - len(texts) - missing)
    problems += _row_problems(where, "is not valid Unicode", damaged)
    return texts


def _patient_ids(where: str, values: Sequence[object], problems: list[Problem]) -> list[str]:
    return [name or "" for name in _names(where, values, problems)]


def _label_indices(
    where: str, names: Sequence[str | None], labels: Sequence[str], problems: list[Problem]
) -> list[int]:
    index = {label: number for number, label in enumerate(labels)}
    # A boolean of JSON or Parquet arrives as `True`, which a config may spell `true`.
    spelled = {label.title(): number for label, number in index.items() if label in {"true", "false"}}
    index = spelled | index
    unknown = [name for name in names if name and name not in index]
    folded = {label.casefold() for label in labels}
    near = sum(name.casefold() in folded for name in unknown)
    hint = f"the plan lists {', '.join(labels)}" + (f"; {rows_in_words(near)} differ only in case" if near else "")
    problems += _row_problems(where, "is not one of the plan's labels", len(unknown), hint)
    return [index.get(name or "", -1) for name in names]


def _row_problems(where: str, rule: str, count: int, hint: str = _MEND_ROWS) -> list[Problem]:
    return [Problem(where, f"{rule} in {rows_in_words(count)}", hint=hint)] if count else []


def _names(where: str, values: Sequence[object], problems: list[Problem]) -> list[str | None]:
    """Each value as a name: empty where there is none, None where it cannot be one."""
    names = [_name(value) for value in values]
    problems += _row_problems(where, "is empty", names.count(""))
    problems += _row_problems(where, "is neither text nor a whole number", names.count(None))
    return names


def _name(value: object) -> str | None:
    if isinstance(value, str):
        return value.strip()
    if _is_missing(value):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value) if isinstance(value, int) else None


def _is_missing(value: object) -> bool:
    """None, or the NaN that stands for it in tables of numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
