"""docs/configuration.md, written from the config classes, so that it cannot tell anything else than they do.

python -m simulations.config_docs > docs/configuration.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.config import SiteConfig
from common.config import StrictConfig
from common.plan import Plan
from server.config import CoordinatorConfig
from simulations.scenario import Scenario

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Chapter:
    """One file that a person writes or reads, and the class that says what may stand in it."""

    title: str
    opening: str
    kind: type[StrictConfig]


CHAPTERS = (
    Chapter(
        "A scenario", "What `cloister-simulate` reads: `cloister-simulate check SCENARIO.toml` tests it.", Scenario
    ),
    Chapter(
        "The finished plan",
        "`plan.json` in a run folder: the scenario's `[plan]` with the noise calibrated and the base model named by "
        "its digests. The SHA-256 of its canonical form is the plan's digest. Nobody writes it by hand.",
        Plan,
    ),
    Chapter(
        "A hospital's settings",
        "`site.toml` in a site's folder, which `cloister-site init` writes with every key as a comment. It is never "
        "sent. `[policy]` is no layer that others could write over: a plan that breaks one of its limits is refused, "
        "and no variable, flag or message can widen one.",
        SiteConfig,
    ),
    Chapter(
        "A coordinator's settings",
        "`coordinator.toml` in the coordinator's folder, which `cloister-coordinator init` writes with every key as a "
        "comment. Nothing about privacy stands in it.",
        CoordinatorConfig,
    ),
)

OPENING = """\
# Configuration

Every key of every file, with its type, its default and its meaning. An unknown key is an error, and so is a value of
another type: nothing is converted silently. All problems of a file are reported at once, each with its key path.
On the command line, `--set KEY.PATH=VALUE` replaces one value of a scenario.

This page is written by `make docs` from the config classes; a test fails when the two differ.
"""

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_WORDS |= {"date": "date, as in 2030-12-31, without quotes"}


def render(chapters: Sequence[Chapter]) -> str:
    """The whole page as Markdown.

    Edge cases:
        A class that two chapters hold is described once, where it comes first; the second place links to it.

    Raises:
        ValueError: When a key has no description.
    """
    written: dict[str, str] = {}
    parts = [OPENING]
    for chapter in chapters:
        parts += [f"## {chapter.title}\n", f"{chapter.opening}\n", *_tables(chapter.kind, written)]
    return "\n".join(parts)


def _tables(kind: type[StrictConfig], written: dict[str, str]) -> Iterator[str]:
    """Each table of a file as Markdown; `written` remembers the classes described so far by their heading."""
    schema = kind.model_json_schema()
    for path, table in _walk(schema, schema.get("$defs", {}), ""):
        heading = f"`[{path}]`" if path else "Top level"
        yield f"### {heading}\n"
        title = str(table["title"])
        if title in written:
            yield f"As {written[title]} above.\n"
            continue
        if path:
            written[title] = heading
        yield f"{_first_sentence(table)}\n"
        if rows := _rows(path, table):
            yield "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _walk(table: Schema, definitions: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, table
    for key, field in table["properties"].items():
        for name in _tables_of(field):
            yield from _walk(definitions[name], definitions, f"{path}.{key}" if path else key)


def _tables_of(field: Schema) -> list[str]:
    """Names of the config classes that a key holds; none for a plain value."""
    places = [field, *field.get("anyOf", ())]
    return [place["$ref"].removeprefix("#/$defs/") for place in places if "$ref" in place]


def _first_sentence(table: Schema) -> str:
    return str(table.get("description", "")).split("\n\n", maxsplit=1)[0].replace("\n", " ")


def _rows(path: str, table: Schema) -> list[str]:
    """A table row for each plain key; keys that hold tables have headings of their own."""
    required = set(table.get("required", ()))
    return [
        _row(f"{path}.{key}" if path else key, key, field, key in required)
        for key, field in table["properties"].items()
        if not _tables_of(field)
    ]


def _row(place: str, key: str, field: Schema, required: bool) -> str:
    if not field.get("description"):
        raise ValueError(f"config key `{place}` has no description; give its Field one")
    default = "required" if required else _value(field.get("default"))
    cells = (f"`{key}`", _type(field), default, str(field["description"]))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(value: object) -> str:
    """A default as TOML writes it; TOML has no null, so that one is left out."""
    return "left out" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(field: Schema) -> str:
    """The JSON schema of a value in words."""
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if "enum" in field:
        return "one of " + ", ".join(_value(choice) for choice in field["enum"])
    if "const" in field:
        return f"only {_value(field['const'])}"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}" + (f", at least {field['minItems']}" if "minItems" in field else "")
    if field["type"] == "object":
        values = field.get("additionalProperties") or next(iter(field["patternProperties"].values()))
        return f"table of name = {_type(values)}"
    return _WORDS[field.get("format", field["type"])] + _limits(field)


def _limits(field: Schema) -> str:
    if "pattern" in field:
        return f" that matches `{field['pattern']}`"
    bounds = ", ".join(f"{sign} {field[word]}" for word, sign in _BOUNDS.items() if word in field)
    return f" {bounds}" if bounds else ""


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(render(CHAPTERS))


if __name__ == "__main__":
    main()
