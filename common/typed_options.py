"""Values that a person typed on the command line: what does not fit is told of the option, as a usage error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config import Config, parse_config
from common.errors import ConfigError, Problem, UsageError


def parse_typed(kind: type[Config], values: Mapping[str, Any], options: Mapping[str, str]) -> Config:
    """Build a config from what options of a command say.

    Args:
        kind: The config class.
        values: As for `common.config.parse_config`; nothing in them is from a file.
        options: The option of each key that has one, such as `name`: `--name`.

    Raises:
        UsageError: Naming the options, with every broken rule.
    """
    try:
        return parse_config(kind, values, "the command")
    except ConfigError as error:
        told = [_told(problem, options) for problem in error.problems]
        named = dict.fromkeys(option for option, _ in told if option)
        hint = f"give another value for {' and '.join(named)}" if named else "`--help` shows what each option takes"
        raise UsageError("; ".join(sentence for _, sentence in told), hint=hint) from None


def _told(problem: Problem, options: Mapping[str, str]) -> tuple[str, str]:
    """The option that a problem is about, empty where none is, and the sentence about it."""
    found = f" (found {problem.value})" if problem.value else ""
    for key, option in options.items():
        if problem.where == key or problem.where.startswith(f"{key}."):
            return option, f"{option} {problem.rule}{found}"
    return "", f"{problem.rule}{found}"
