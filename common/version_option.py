"""`--version` of every command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer


def _show(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cloister {version('cloister')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the installed version, and end.")
]


def top_level(show_version: VersionOption = False) -> None:
    """The callback of a command's top level: its options stand before any subcommand. Its help is the app's own."""
