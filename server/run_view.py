"""What a person sees while a run goes on: live on a terminal, one line an event elsewhere; all to stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from common.plan import Plan
from common.sparkline import sparkline
from server.progress import Event, PhaseProgress, RoundProgress, SiteProgress
from server.run_words import event_words, phase_words, refusal_words, site_words

_COLOURS = {
    "ready": "green",
    "accepted": "green",
    "fetching": "yellow",
    "waiting": "yellow",
    "refused": "red",
    "not-ready": "red",
}
_STEP = 0.25
"""In a pipe, a base model on its way is told in quarters."""


class RunView(Protocol):
    """Something that shows how a run goes on."""

    def show(self, event: Event) -> None:
        """One more event."""
        ...


class LineView:
    """One line an event."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console, self._plan = console, plan
        self._quarters: dict[str, int] = {}

    def show(self, event: Event) -> None:
        """Print the event's line, if it tells anything new."""
        if isinstance(event, SiteProgress) and event.state == "fetching":
            quarter = int(event.fraction / _STEP)
            if self._quarters.get(event.site) == quarter:
                return
            self._quarters[event.site] = quarter
        if isinstance(event, PhaseProgress) and event.phase == "failed":
            return  # its sentence leaves by the outer door
        self._console.print(event_words(event, self._plan), markup=False, highlight=False, soft_wrap=True)


class LiveRunView:
    """A table of sites, figures with a curve, and a bar with the time left."""

    def __init__(self, live: Live, plan: Plan) -> None:
        self._live, self._plan = live, plan
        self._sites = {name: SiteProgress(name, "silent") for name in sorted(plan.roster)}
        self._phase: PhaseProgress | None = None
        self._round: RoundProgress | None = None
        self._figures: dict[str, float] = {}
        self._losses: list[float] = []
        self._done, self._began = 0, time.monotonic()
        self._progress = Progress(
            TextColumn("[bold]rounds"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._task = self._progress.add_task("rounds", total=plan.rounds, left="")
        self._draw()

    def show(self, event: Event) -> None:
        """Take the event into the picture."""
        if isinstance(event, SiteProgress):
            self._sites[event.site] = event
        elif isinstance(event, RoundProgress):
            self._take_round(event)
        else:
            self._phase = event
            self._done, self._began = 0, time.monotonic()
        self._draw()

    def _take_round(self, event: RoundProgress) -> None:
        self._round = event
        self._done += 1
        if event.figures:
            self._figures = dict(event.figures)
            self._losses.append(next(iter(event.figures.values())))
        self._progress.update(self._task, completed=event.round_number, left=self._time_left(event))

    def _time_left(self, event: RoundProgress) -> str:
        seconds = (time.monotonic() - self._began) / self._done * (self._plan.rounds - event.round_number)
        return f"about {seconds // 60:.0f}:{seconds % 60:02.0f} left"

    def _draw(self) -> None:
        self._live.update(Group(self._heading(), self._table(), self._line(), self._progress), refresh=True)

    def _heading(self) -> RenderableType:
        return Text("waiting for the SuperLink to start the run" if self._phase is None else phase_words(self._phase))

    def _table(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("site", no_wrap=True)
        table.add_column("state", overflow="fold")
        for name, site in self._sites.items():
            is_silent = self._round is not None and name in self._round.silent
            words = Text("no answer in the last round", "red") if is_silent else None
            table.add_row(name, words or Text(site_words(site), _COLOURS.get(site.state, "dim")))
        return table

    def _line(self) -> RenderableType:
        if self._round is None:
            return Text("")
        figures = "   ".join(f"{name} {value:.4f}" for name, value in self._figures.items()) or "no figures yet"
        sites = f"   {self._round.survivors} of {self._plan.sites} sites in the last round"
        remark = "   ".join(part for part in (refusal_words(self._round), self._round.remark) if part)
        return Text.assemble(
            (sparkline(self._losses), "cyan"),
            f"  ε {self._round.epsilon:.2f}   ",
            figures,
            sites,
            ("   " + remark, "yellow"),
        )


@contextmanager
def watch(console: Console, plan: Plan) -> Iterator[RunView]:
    """A view that fits the console: live on a terminal, lines otherwise."""
    if not console.is_terminal:
        yield LineView(console, plan)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield LiveRunView(live, plan)
