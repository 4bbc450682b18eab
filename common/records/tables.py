"""One data file in, its wanted columns out, or the problem that stands in the way.

A parser's own message may quote the row it stumbled over, so no such message is passed on, and problems are returned
rather than raised: an error raised while a parser's exception is handled would keep that exception as its context.

A problem of a row is told apart from a problem of the file: one row must not decide whether the others can be used.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from common.errors import Problem

_NO_VALUE = ()


@dataclass(frozen=True, repr=False)
class Table:
    """What one file holds.

    Args:
        names: All its column names, in order, repetitions included.
        columns: The values of each wanted column that it has, a lone surrogate for a byte that is not UTF-8.
        rows: Rows that could be read; every column has as many values.
        broken: What is wrong with the rows that could not, or with a file that has none.
        broken_rows: How many those are.
        states_columns: Whether the file names its columns apart from its rows.
    """

    names: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    rows: int
    broken: tuple[Problem, ...] = ()
    broken_rows: int = 0
    states_columns: bool = True


def read_table(path: Path, wanted: Sequence[str]) -> Table | Problem:
    """Read a CSV, JSON Lines or Parquet file.

    Guarantees:
        A problem names the file, a rule and a number of rows; it holds nothing that stands in the file. What is
        returned as a `Problem` does not follow from what a row of a CSV or JSON Lines file says.

    Edge cases:
        A CSV or JSON Lines file without a byte is a table without rows. In a CSV file whose quotes are broken, a row
        ends at the end of its line or at the next quote, so that rows after it may be lost with it; no program that
        writes CSV rightly leaves such a row, whatever its text.

    Args:
        path: A file that ends in .csv, .jsonl, .ndjson or .parquet.
        wanted: Names of the columns to read; those that the file lacks are left out.
    """
    try:
        return _refusal(path) or _READERS[path.suffix.lower()](path, wanted)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        return Problem(str(path), f"cannot be read: {type(error).__name__}", hint="is it damaged, or of another kind?")


def rows_in_words(count: int) -> str:
    """A number of rows, for a message."""
    return f"{count:,} row{'s' if count != 1 else ''}"


def _refusal(path: Path) -> Problem | None:
    """Why this is no file to open."""
    if path.is_dir():
        return Problem(str(path), "is a folder, not a file", hint="name the files in it")
    if not path.exists():
        return Problem(str(path), "does not exist", hint="check the path")
    if path.suffix.lower() not in _READERS:
        return Problem(str(path), "is of no known kind", hint="files end in .csv, .jsonl, .ndjson or .parquet")
    return None


def _read_csv(path: Path, wanted: Sequence[str]) -> Table:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        rows = _csv_rows(stream)
        header = next(rows, None) or []
        places = [header.index(name) for name in wanted if name in header]
        columns: dict[str, list[str]] = {header[place]: [] for place in places}
        targets = [(columns[header[place]].append, place) for place in places]
        good = short = quotes = 0
        for row in rows:
            if row is None:
                quotes += 1
            elif len(row) != len(header):
                short += 1
            else:
                good += 1
                for append, place in targets:
                    append(row[place])
    rule = "has a quoted value that is not closed, is followed by text, or is longer than 131,072 characters,"
    broken = (
        *_broken(path, short, "has another number of columns than the first line"),
        *_broken(path, quotes, rule, 'quote a value with "..." and double the quotes inside it'),
    )
    return Table(tuple(header), columns, good, broken or _nothing(path), short + quotes)


def _csv_rows(stream: Iterable[str]) -> Iterator[list[str] | None]:
    """One list a row, None for a row with broken quotes; blank lines are skipped."""
    # Strict, because a quote that is never closed would otherwise swallow the rest of the file as one value.
    reader = csv.reader(stream, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None
            continue
        if row:
            yield row


def _read_json_lines(path: Path, wanted: Sequence[str]) -> Table:
    columns: dict[str, list[object]] = {name: [] for name in wanted}
    names: dict[str, None] = {}
    good = bad = 0
    for row in _json_rows(path):
        if row is None:
            bad += 1
            continue
        good += 1
        names.update(dict.fromkeys(row))
        for name in wanted:
            columns[name].append(row.get(name))
    broken = _broken(path, bad, "has no JSON object") or _nothing(path)
    present = {name: values for name, values in columns.items() if name in names}
    return Table(tuple(names), present, good, broken, bad, states_columns=False)


def _json_rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """One object a line, None for a line that holds none; blank lines are skipped."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        for line in stream:
            if line.strip():
                yield _json_object(line)


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_parquet(path: Path, wanted: Sequence[str]) -> Table:
    with parquet.ParquetFile(path) as source:
        names = tuple(source.schema_arrow.names)
        # A column that is there twice cannot be read by its name; its name alone is enough to report it.
        table = source.read(columns=[name for name in wanted if names.count(name) == 1])
    columns = {name: _values(table.column(name)) for name in table.column_names}
    return Table(names, columns, table.num_rows)


def _values(column: pyarrow.ChunkedArray) -> list[Any]:
    """A column's values; one that is beyond what Python can hold must not take the others with it."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raw = column.cast(pyarrow.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", errors="surrogateescape") for value in raw]
    except (ValueError, OverflowError):  # a date before year 1, say: no date is a text, a label or an id
        return [_NO_VALUE] * len(column)


def _broken(path: Path, count: int, rule: str, hint: str = "mend or remove these rows") -> tuple[Problem, ...]:
    return (Problem(str(path), f"{rule} in {rows_in_words(count)}", hint=hint),) if count else ()


def _nothing(path: Path) -> tuple[Problem, ...]:
    if path.stat().st_size:
        return ()
    return (Problem(str(path), "is empty", hint="remove it from the list, or fill it"),)


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Table]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
