"""Strict, frozen configs: an unknown key is an error, and every problem is reported at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, ValidationError

from common.config_words import rule_in_words
from common.errors import ConfigError, Problem

Names = Annotated[tuple[str, ...], Strict(strict=False)]
"""A tuple of names; TOML arrays arrive as lists."""


_QUOTED = re.compile(r"`([a-z_.]+)`")


class StrictConfig(BaseModel):
    """Base of every config: frozen, no unknown keys, no silent conversions, defaults checked too."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=False,
    )


Config = TypeVar("Config", bound=StrictConfig)


def parse_config(kind: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """Build a config from plain values, reporting every problem at once.

    Args:
        kind: The config class.
        values: Nested tables as `tomllib` gives them.
        source: Where the values came from, for the message (a file name).

    Raises:
        ConfigError: With one `Problem` per broken rule: key path, rule, value, hint.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        problems = tuple(_problem(kind, item) for item in error.errors(include_url=False))
        raise ConfigError(_summary(source, len(problems)), problems) from None


def _summary(source: str, count: int) -> str:
    return f"{source} has {count} problem{'s' if count != 1 else ''}"


def _problem(kind: type[BaseModel], item: Mapping[str, Any]) -> Problem:
    path = item["loc"]
    where = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        return Problem(where, "is not a known key", hint=_closest_key(kind, path))
    if item["type"] == "missing":
        return Problem(where, "is required", hint=f"add `{path[-1]} = …`; docs/configuration.md says what it means")
    rule = rule_in_words(item)
    keys = _keys_in(rule, kind, path) if isinstance(item.get("input"), Mapping) else ()
    keys = keys or ((where,) if where else ())
    change = f"change {' or '.join(f'`{key}`' for key in keys)}; " if keys else ""
    hint = f"{change}docs/configuration.md lists what {'it' if len(keys) == 1 else 'each'} may be"
    return Problem(", ".join(keys) or "(whole file)", rule, _shown(item.get("input")), hint)


def _keys_in(rule: str, kind: type[BaseModel], path: Sequence[int | str]) -> tuple[str, ...]:
    """The keys that a rule about a whole table names, from the top on, each once."""
    known = _keys_at(kind, path)
    named = [key for key in _QUOTED.findall(rule) if key.partition(".")[0] in known]
    return tuple(dict.fromkeys(".".join((*map(str, path), key)) for key in named))


def _shown(value: object) -> str:
    """A short form of a config value; tables are named, not printed."""
    if isinstance(value, Mapping):
        return ""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _closest_key(kind: type[BaseModel], path: Sequence[int | str]) -> str:
    known = _keys_at(kind, path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known keys here: {', '.join(sorted(known))}" if known else "remove it"


def _keys_at(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    current: Any = kind
    for part in path:
        field = current.model_fields.get(part) if _is_config(current) else None
        if field is None:
            return []
        current = field.annotation
    return list(current.model_fields) if _is_config(current) else []


def _is_config(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
