"""What a person sees while a run goes on: to stderr, live on a terminal, one line a round elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from common.sparkline import sparkline


@dataclass(frozen=True)
class RoundFigures:
    """What one finished round has to tell a reader.

    Attributes:
        round_number: From 1.
        answered: Hospitals whose answer counted.
        epsilon: Spent so far by every hospital.
        figures: Named figures, such as `validation loss` and `test AUC`, in the order to show them; none where the
            model was not judged.
        remark: What went wrong; empty where nothing did.
    """

    round_number: int
    answered: int
    epsilon: float
    figures: Mapping[str, float]
    remark: str = ""


class View(Protocol):
    """Something that shows how a run goes on."""

    def site_started(self, site: str) -> None:
        """A hospital has begun its part of a round."""
        ...

    def site_finished(self, site: str) -> None:
        """A hospital has answered."""
        ...

    def round_finished(self, figures: RoundFigures) -> None:
        """A round is over and saved."""
        ...


class SilentView:
    """Shows nothing."""

    def site_started(self, site: str) -> None:
        """Nothing."""

    def site_finished(self, site: str) -> None:
        """Nothing."""

    def round_finished(self, figures: RoundFigures) -> None:
        """Nothing."""


class LineView(SilentView):
    """One line a judged or lost round, for logs and pipes; a long run is not judged in every round."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds

    def round_finished(self, figures: RoundFigures) -> None:
        """Print the round's line, if it has anything to tell."""
        if not figures.figures and not figures.remark:
            return
        shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.figures.items())
        place = f"round {figures.round_number}/{self._rounds}  answered {figures.answered}  ε {figures.epsilon:.2f}"
        line = "  ".join(part for part in (place, shown, figures.remark) if part)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass
class _Site:
    state: str = "waiting"
    answers: int = 0
    started: float = 0.0
    seconds: float = 0.0


@dataclass
class _Shown:
    """What the live picture is drawn from."""

    sites: dict[str, _Site]
    rounds: int
    epsilon: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    remark: str = ""


class LiveView:
    """A table of hospitals, a loss curve, a bar with the time left."""

    def __init__(self, live: Live, sites: tuple[str, ...], rounds: int, done: int) -> None:
        self._live = live
        self._shown = _Shown({site: _Site() for site in sites}, rounds)
        self._progress = Progress(
            TextColumn("[bold]rounds"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._task = self._progress.add_task("rounds", total=rounds, completed=done, left="")
        self._began = time.monotonic()
        self._parts = self._parts_of_round = 0
        self._draw()

    def site_started(self, site: str) -> None:
        """Mark the hospital as training."""
        row = self._shown.sites[site]
        row.state, row.started = "training", time.monotonic()
        self._draw()

    def site_finished(self, site: str) -> None:
        """Mark the hospital's answer."""
        row = self._shown.sites[site]
        row.state, row.answers, row.seconds = "answered", row.answers + 1, time.monotonic() - row.started
        self._parts += 1
        self._parts_of_round += 1
        self._progress.update(self._task, left=self._time_left())
        self._draw()

    def round_finished(self, figures: RoundFigures) -> None:
        """Move the bar on, and the curve where the model was judged; until then the last figures stay."""
        self._shown.epsilon, self._shown.remark = figures.epsilon, figures.remark
        if figures.figures:
            self._shown.figures = figures.figures
            self._shown.losses.append(next(iter(figures.figures.values())))
        for row in self._shown.sites.values():
            row.state = "waiting"
        self._parts_of_round = 0
        self._progress.update(self._task, completed=figures.round_number)
        self._progress.update(self._task, left=self._time_left())
        self._draw()

    def _time_left(self) -> str:
        rounds_left = self._shown.rounds - float(self._progress.tasks[0].completed)
        parts_left = max(0.0, rounds_left * len(self._shown.sites) - self._parts_of_round)
        seconds = (time.monotonic() - self._began) / max(1, self._parts) * parts_left
        return f"about {seconds // 60:.0f}:{seconds % 60:02.0f} left"

    def _draw(self) -> None:
        self._live.update(Group(_site_table(self._shown), _curve_line(self._shown), self._progress), refresh=True)


def _site_table(shown: _Shown) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("hospital", "left"),
        ("state", "left"),
        ("answers", "right"),
        ("seconds", "right"),
        ("ε spent", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich's literal type is not exported
    for name, site in shown.sites.items():
        colour = {"training": "yellow", "answered": "green"}.get(site.state, "dim")
        table.add_row(name, Text(site.state, colour), str(site.answers), f"{site.seconds:.1f}", f"{shown.epsilon:.2f}")
    return table


def _curve_line(shown: _Shown) -> RenderableType:
    figures = "   ".join(f"{name} {value:.4f}" for name, value in shown.figures.items())
    figures = figures or "no figures yet"
    return Text.assemble((sparkline(shown.losses), "cyan"), "  ", figures, ("   " + shown.remark, "yellow"))


@contextmanager
def watch(console: Console, sites: tuple[str, ...], rounds: int, done: int = 0) -> Iterator[View]:
    """A view that fits the console: live on a terminal, lines otherwise."""
    if not console.is_terminal:
        yield LineView(console, rounds)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield LiveView(live, sites, rounds, done)


@contextmanager
def phases(console: Console) -> Iterator[Callable[[str], None]]:
    """Says what is being done before the rounds begin: a spinner on a terminal, one line a phase elsewhere."""
    if not console.is_terminal:
        yield lambda phase: console.print(phase, highlight=False, soft_wrap=True)
        return
    with console.status("") as status:
        yield status.update
