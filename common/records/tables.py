"""One data file in, its wanted columns out, or the problem that stands in the way.

A parser's own message may quote the row it stumbled over, so no such message is passed on, and problems are returned
rather than raised: an error raised while a parser's exception is handled would keep that exception as its context.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from common.errors import Problem


@dataclass(frozen=True, repr=False)
class Table:
    """What one file holds.

    Args:
        names: All its column names, in order, repetitions included.
        columns: The values of each wanted column that it has.
        rows: Rows that could be read; every column has as many values.
        broken: What is wrong with the rows that could not.
    """

    names: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    rows: int
    broken: tuple[Problem, ...] = ()


def read_table(path: Path, wanted: Sequence[str]) -> Table | Problem:
    """Read a CSV, JSON Lines or Parquet file.

    Guarantees:
        A problem names the file, a rule and a number of rows; it holds nothing that stands in the file.

    Args:
        path: A file that ends in .csv, .jsonl, .ndjson or .parquet.
        wanted: Names of the columns to read; those that the file lacks are left out.
    """
    try:
        return _refusal(path) or _READERS[path.suffix.lower()](path, wanted)
    except UnicodeDecodeError:
        return Problem(str(path), "is not UTF-8", hint="save it again with the encoding UTF-8")
    except csv.Error:
        rule = "has a quoted value that is not closed, is followed by text, or is longer than 131,072 characters"
        return Problem(str(path), rule, hint='quote a value with "..." and double the quotes inside it')
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
    if path.stat().st_size == 0:
        return Problem(str(path), "is empty", hint="remove it from the list, or fill it")
    return None


def _read_csv(path: Path, wanted: Sequence[str]) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        # Strict, because a quote that is never closed would otherwise swallow the rest of the file as one value.
        rows = (row for row in csv.reader(stream, strict=True) if row)
        header = next(rows, [])
        places = [header.index(name) for name in wanted if name in header]
        columns: dict[str, list[str]] = {header[place]: [] for place in places}
        targets = [(columns[header[place]].append, place) for place in places]
        good = bad = 0
        for row in rows:
            if len(row) != len(header):
                bad += 1
                continue
            good += 1
            for append, place in targets:
                append(row[place])
    return Table(tuple(header), columns, good, _broken(path, bad, "another number of columns than the first line"))


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
    present = {name: values for name, values in columns.items() if name in names}
    return Table(tuple(names), present, good, _broken(path, bad, "no JSON object"))


def _json_rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """One object a line, None for a line that holds none; blank lines are skipped."""
    with path.open(encoding="utf-8-sig") as stream:
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
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(names, columns, table.num_rows)


def _broken(path: Path, count: int, what: str) -> tuple[Problem, ...]:
    if not count:
        return ()
    return (Problem(str(path), f"has {what} in {rows_in_words(count)}", hint="mend or remove these rows"),)


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Table]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
