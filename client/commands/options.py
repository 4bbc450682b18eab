"""Options that several commands share, and the home that they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.home import SiteHome, default_home
from common.errors import ConfigError

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        envvar="CLOISTER_SITE_HOME",
        help="This site's folder; left out: one in your account's data folder.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def chosen_home(folder: Path | None) -> SiteHome:
    """The home that a command is about, whether or not it is there."""
    return SiteHome((folder or default_home()).absolute())


def existing_home(folder: Path | None) -> SiteHome:
    """The home that a command is about.

    Raises:
        ConfigError: When there is none.
    """
    home = chosen_home(folder)
    if not home.path.is_dir():
        hint = "make one with `cloister-site init --name NAME`, or say where it is: --home FOLDER (CLOISTER_SITE_HOME)"
        raise ConfigError(f"there is no site at {home.path}", hint=hint)
    return home
