"""Commented config files for those who have none yet."""

from __future__ import annotations

import json

from jinja2 import Environment, PackageLoader, StrictUndefined


def fill_template(package: str, file: str, /, **values: str | int | list[str]) -> str:
    """Fill a commented config file in; the values become TOML.

    Guarantees:
        Whatever text a value holds, it stays one value: it is quoted.

    Args:
        package: `client` or `server`, in whose folder `templates` the file lies.
        file: The file's name.
        values: What stands in the places of the same names.
    """
    place = Environment(  # noqa: S701 - the output is TOML, and values are quoted for it
        loader=PackageLoader(package), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return place.get_template(file).render({key: _toml(value) for key, value in values.items()})


def _toml(value: str | int | list[str]) -> str:
    """JSON's spelling is TOML's, but for the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
