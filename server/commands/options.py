"""Options that several commands share, and how they open the coordinator's home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from common.audit import AuditLog
from common.audit_events import AuditEvent
from common.errors import ConfigError
from common.key_files import read_identity
from server.config import CoordinatorConfig, load_coordinator_config
from server.home import CoordinatorHome, default_home

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        envvar="CLOISTER_COORDINATOR_HOME",
        help="The coordinator's folder.",
        show_default="your user data folder",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check all, change nothing.")]


def home_at(path: Path | None) -> CoordinatorHome:
    """The home that a command is about, which may not exist yet."""
    return CoordinatorHome((path or default_home()).absolute())


def open_home(path: Path | None) -> tuple[CoordinatorHome, CoordinatorConfig]:
    """The home that a command is about, with its settings.

    Raises:
        ConfigError: When there is none, or its settings do not fit.
    """
    home = home_at(path)
    if not home.path.is_dir():
        raise ConfigError(
            f"there is no coordinator at {home.path}",
            hint="make one with `cloister-coordinator init`, or name its folder by --home",
        )
    return home, load_coordinator_config(home.config)


def open_audit(home: CoordinatorHome) -> AuditLog:
    """The home's audit log, which `init` began."""
    return AuditLog(home.audit, home.audit_anchor, read_identity(home.identity_key), must_exist=True)


def record(home: CoordinatorHome, event: AuditEvent) -> None:
    """Write one event into the home's audit log."""
    open_audit(home).record(event)


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """A JSON value to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
