"""TOML files in, plain tables out; a file that cannot be read is one sentence."""

from __future__ import annotations

import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError

PACKAGE_PREFIX = "package:"
"""A folder in a config that starts with this lies inside an installed Python package: `package:NAME/FOLDER`."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: When it is missing, unreadable, not UTF-8 or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist", hint="check its path") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a config file", hint="name the TOML file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"config file {path} cannot be read: {type(error).__name__}", hint="it must be UTF-8 text"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"config file {path} is not TOML: {error}",
            hint="a config is a TOML file: strings need quotes, tables need [brackets]",
        ) from None


def anchor_path(table: object, key: str, folder: Path, default: str | None = None) -> None:
    """Make the path of a config, or each of a list of paths, independent of the working folder, in place.

    Edge cases:
        What is no table or no text stays as it is: naming it is the parser's. So does `package:NAME/FOLDER`.

    Args:
        table: The table that holds the path, as `read_toml` gives it.
        key: The path's key.
        folder: Where a relative path starts.
        default: The path where the key is left out; None leaves it out.
    """
    if not isinstance(table, MutableMapping):
        return
    value = table.get(key, default)
    if isinstance(value, list):
        table[key] = [_anchored(item, folder) for item in value]
    elif value is not None:
        table[key] = _anchored(value, folder)


def _anchored(value: object, folder: Path) -> object:
    if not isinstance(value, str) or value.startswith(PACKAGE_PREFIX):
        return value
    return str((folder / Path(value).expanduser()).resolve())
