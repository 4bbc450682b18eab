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
_UTF_8 = "save the file again with the encoding UTF-8, or mend or remove these rows"


@dataclass(frozen=True, repr=False)
class Reading:
    """The rows that can be used, and how many others there are; that number is as private as the rows."""

    records: Records
    left_out: int


@dataclass(repr=False)
class _Found:
    """Rows and problems gathered over all files; `set_up` are those of the problems that no row is the cause of."""

    texts: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    set_up: list[Problem] = field(default_factory=list)
    left_out: int = 0

    def misses(self, problems: Iterable[Problem]) -> None:
        """Note problems of the set-up."""
        for problem in problems:
            self.problems.append(problem)
            self.set_up.append(problem)

    def records(self, columns: DataColumns) -> Records:
        return build_records(self.texts, self.labels, None if columns.patient is None else self.patients)


def read_records(paths: Sequence[Path], columns: DataColumns, labels: Sequence[str]) -> Records:
    """Read all files as one data set, for those who may know what is wrong with a row.

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
    found = _read(paths, columns, labels)
    _refuse(found.problems)
    return found.records(columns)


def read_usable_records(paths: Sequence[Path], columns: DataColumns, labels: Sequence[str]) -> Reading:
    """Read all files as one data set where others see whether this fails: rows that do not fit are left out.

    Guarantees:
        Whether it raises does not depend on what a row says: a label that is none of `labels`, an empty text, a value
        of another type, bytes that are not UTF-8, a row that cannot be parsed and a data set without rows are no error.
        Each row is kept or left out by itself, so that one record more or less changes one unit of privacy.
    Edge cases:
        Properties of the set-up, which do raise: no file is named, or one twice; a file does not exist, is a folder or
        of no known kind, or cannot be opened; a Parquet file is damaged; the header of a CSV file or the schema of a
        Parquet file lacks a column or has it twice. They are decided by who exports the files and writes site.toml,
        and are the same with one record more. JSON Lines states no columns: a row without one is left out.

    Args:
        paths: As for `read_records`.
        columns: As for `read_records`.
        labels: The plan's labels in their order; whoever chooses them learns nothing from an error.

    Raises:
        DataError: Listing every problem of the set-up.
    """
    found = _read(paths, columns, labels)
    _refuse(found.set_up)
    return Reading(found.records(columns), found.left_out)


def _read(paths: Sequence[Path], columns: DataColumns, labels: Sequence[str]) -> _Found:
    found = _Found()
    for path in paths:
        _read_file(path, columns, labels, found)
    found.misses(Problem(str(path), "is listed more than once", hint="list it once") for path in _repeated(paths))
    if not paths:
        found.misses([Problem("data files", "none is given", hint="name at least one file")])
    return found


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        count = len(problems)
        raise DataError(f"the data cannot be used: {count} problem{'s' if count != 1 else ''}", tuple(problems))


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
        found.misses([table])
        return
    found.problems += table.broken
    found.left_out += table.broken_rows
    missing = tuple(_column_problems(path, table, columns.names)) if table.names else ()
    if table.states_columns:
        found.misses(missing)
    if not table.rows:
        if not table.broken:
            found.problems.append(Problem(str(path), "has no rows", hint="remove it from the list, or fill it"))
        return
    if not missing:
        _take_rows(path, table, columns, labels, found)
        return
    if not table.states_columns:
        found.problems += missing
        found.left_out += table.rows
    _look_at_columns(path, table, columns, labels, found)


def _take_rows(path: Path, table: Table, columns: DataColumns, labels: Sequence[str], found: _Found) -> None:
    """Add the rows of which every value can be used."""
    texts, patients, indices = _look_at_columns(path, table, columns, labels, found)
    for text, patient, index in zip(texts, patients, indices, strict=True):
        if text is None or patient is None or index is None:
            found.left_out += 1
            continue
        found.texts.append(text)
        found.patients.append(patient)
        found.labels.append(index)


def _look_at_columns(
    path: Path, table: Table, columns: DataColumns, labels: Sequence[str], found: _Found
) -> tuple[Sequence[str | None], Sequence[str | None], Sequence[int | None]]:
    """Each row's text, patient and label, None where it cannot be used; of columns that are there."""
    texts: Sequence[str | None] = ()
    patients: Sequence[str | None] = [""] * table.rows
    indices: Sequence[int | None] = ()
    if columns.text in table.columns:
        texts = _texts(_where(path, columns.text), table.columns[columns.text], found.problems)
    if columns.patient is not None and columns.patient in table.columns:
        names = _names(_where(path, columns.patient), table.columns[columns.patient], found.problems)
        patients = [name or None for name in names]
    if columns.label in table.columns:
        names = _names(_where(path, columns.label), table.columns[columns.label], found.problems)
        indices = _label_indices(_where(path, columns.label), names, labels, found.problems)
    return texts, patients, indices


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


def _texts(where: str, values: Sequence[object], problems: list[Problem]) -> list[str | None]:
    texts = [value if isinstance(value, str) else None for value in values]
    missing = sum(_is_missing(value) for value in values)
    empty = sum(text is not None and not text.strip() for text in texts)
    damaged = sum(text is not None and not _is_unicode(text) for text in texts)
    problems += _row_problems(where, "is empty", missing + empty)
    problems += _row_problems(where, "is not text", texts.count(None) - missing)
    problems += _row_problems(where, "is not valid Unicode", damaged, _UTF_8)
    return [text if text and text.strip() and _is_unicode(text) else None for text in texts]


def _label_indices(
    where: str, names: Sequence[str | None], labels: Sequence[str], problems: list[Problem]
) -> list[int | None]:
    index = {label: number for number, label in enumerate(labels)}
    # A boolean of JSON or Parquet arrives as `True`, which a config may spell `true`.
    spelled = {label.title(): number for label, number in index.items() if label in {"true", "false"}}
    index = spelled | index
    unknown = [name for name in names if name and name not in index]
    folded = {label.casefold() for label in labels}
    near = sum(name.casefold() in folded for name in unknown)
    hint = f"the plan lists {', '.join(labels)}" + (f"; {rows_in_words(near)} differ only in case" if near else "")
    problems += _row_problems(where, "is not one of the plan's labels", len(unknown), hint)
    return [index.get(name) if name else None for name in names]


def _row_problems(where: str, rule: str, count: int, hint: str = _MEND_ROWS) -> list[Problem]:
    return [Problem(where, f"{rule} in {rows_in_words(count)}", hint=hint)] if count else []


def _names(where: str, values: Sequence[object], problems: list[Problem]) -> list[str | None]:
    """Each value as a name: empty where there is none, None where it cannot be one."""
    names = [_name(value) for value in values]
    problems += _row_problems(where, "is empty", names.count(""))
    problems += _row_problems(where, "is neither text nor a whole number", names.count(None))
    damaged = [name is not None and not _is_unicode(name) for name in names]
    problems += _row_problems(where, "is not valid Unicode", sum(damaged), _UTF_8)
    return [None if unfit else name for name, unfit in zip(names, damaged, strict=True)]


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
