"""Figures of a bench on one page."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

_WIDTH = 100

Figure = tuple[str, str, str]
"""What was measured, the value, and what it should be; the last is empty where nothing is asked."""


def print_figures(title: str, figures: Iterable[Figure]) -> None:
    """Print one line a figure."""
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    for name in ("value", "aim"):
        table.add_column(name, justify="right", no_wrap=True)
    for figure in figures:
        table.add_row(*figure)
    # A pipe has no width of its own, and a figure must not be cut.
    Console(width=_WIDTH).print(table)
