"""A plan as a person writes it; read without torch, so that a slip of the pen is told at once."""

from __future__ import annotations

from pathlib import Path

from common.config import parse_config
from common.config_file import read_toml
from common.errors import ConfigError
from common.plan import PlanDraft


def read_draft(path: Path) -> PlanDraft:
    """A plan as a person writes it, from TOML.

    Raises:
        ConfigError: With every problem at once.
    """
    values = read_toml(path)
    if "plan" in values and "task" not in values:
        raise ConfigError(
            f"{path} keeps its plan in a table [plan], as a scenario does",
            hint="put the keys of [plan] at the top of a file of their own, and write [privacy] for [plan.privacy]",
        )
    return parse_config(PlanDraft, values, str(path))
