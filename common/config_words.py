"""pydantic's rules in the words of someone who writes TOML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_RULES = {
    "int_type": "must be a whole number, without quotes",
    "float_type": "must be a number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "string_type": "must be text in quotes",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list in brackets",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must be {allowed}",
    "string_too_short": "must have at least {min_length}",
    "string_too_long": "must have at most {max_length}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
}
_BOUNDS = frozenset({"gt", "ge", "lt", "le"})
_LENGTHS = frozenset({"min_length", "max_length"})
_THINGS = {"string": ("letter", "letters")}
_ENTRIES = ("entry", "entries")

_NAME = re.compile(r"\^\[([A-Za-z0-9-]+)\]\[\1\._-\]\{0,(\d+)\}\$")
_HEXADECIMAL = re.compile(r"\^\[0-9a-f\]\{(\d+)\}\$")


def rule_in_words(item: Mapping[str, Any]) -> str:
    """What a value must be, as a sentence without its subject.

    Edge cases:
        A rule without words of ours keeps pydantic's, or its validator's.

    Args:
        item: One of pydantic's errors.
    """
    kind, context = item["type"], dict(item.get("ctx") or {})
    if kind not in _RULES:
        rule = str(item["msg"]).removeprefix("Value error, ")
        return rule[:1].lower() + rule[1:]
    for bound in _BOUNDS & context.keys():
        context[bound] = _number(context[bound])
    for length in _LENGTHS & context.keys():
        context[length] = _counted(kind, context[length])
    return _RULES[kind].format(**context, allowed=_allowed(str(context.get("pattern", ""))))


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _counted(kind: str, count: int) -> str:
    one, more = _THINGS.get(kind.partition("_")[0], _ENTRIES)
    return f"{count} {one if count == 1 else more}"


def _allowed(pattern: str) -> str:
    """What a pattern of ours takes."""
    if name := _NAME.fullmatch(pattern):
        letters = "letters" if "A-Z" in name[1] else "small letters"
        most = int(name[2]) + 1
        return f"made of {letters}, digits, dots, - and _, with a letter or digit first, {most} at most"
    if digits := _HEXADECIMAL.fullmatch(pattern):
        return f"{digits[1]} hexadecimal digits in small letters"
    return f"as the pattern {pattern} says"
