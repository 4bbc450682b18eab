"""What a run folder says of itself, and who may work in it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.config import parse_config
from common.errors import IntegrityError, TryAgainError
from common.plan import Plan
from simulations.scenario import Scenario, scenario_from_values

SCENARIO_NAME = "scenario.json"
PLAN_NAME = "plan.json"


def read_scenario(folder: Path) -> Scenario:
    """The scenario that the run was started with."""
    return scenario_from_values(read_table(folder / SCENARIO_NAME), str(folder / SCENARIO_NAME))


def read_plan(folder: Path) -> Plan:
    """The plan of the run.

    Raises:
        IntegrityError: When it is damaged, or not the one that its digest names.
    """
    path = folder / PLAN_NAME
    saved = read_table(path)
    terms = saved.get("plan")
    if isinstance(terms, dict):
        plan = parse_config(Plan, terms, str(path))
        if saved.get("digest") == plan.digest:
            return plan
    raise IntegrityError(f"{path} is damaged: its digest is not that of a plan in it", hint="start a new run")


def read_table(path: Path) -> dict[str, Any]:
    """A JSON table of the run folder.

    Raises:
        IntegrityError: When it is none.
    """
    try:
        table = json.loads(path.read_bytes())
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise IntegrityError(f"{path} is damaged: it is not a JSON table", hint="restore it, or start a new run")
    return table


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Only one process at a time may work in a folder: two would charge one book.

    Args:
        folder: An existing folder.
        wait: Whether to wait for another process, which gives way also when it is killed.

    Raises:
        TryAgainError: When another process works there, and `wait` is not set.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgainError(f"another process runs in {folder}", hint="wait for it, or stop it") from None
        yield
