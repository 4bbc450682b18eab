"""Reading a commented config file as a person does who takes comment signs away."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

DEFAULT, EXAMPLE = "#", "#-"


def uncommented(text: str, mark: str) -> str:
    """The file with every setting that stands behind the mark switched on."""
    return re.sub(rf'^{mark} (?=[\["a-z_])(?=\S+(?: = .*|\].*)$)', "", text, flags=re.MULTILINE)


def missing_keys(kind: type[BaseModel], table: Any) -> list[str]:
    """Paths of the class's plain keys that a table lacks."""
    return [".".join(path) for path in key_paths(kind) if not _has(table, path)]


def key_paths(kind: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all plain keys."""
    for key, field in kind.model_fields.items():
        inner = [part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_config(part)]
        yield from key_paths(inner[0], (*path, key)) if inner else [(*path, key)]


def _is_config(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _has(table: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if key not in table:
            return False
        table = table[key]
    return True
