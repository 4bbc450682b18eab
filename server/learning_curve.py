"""The learning curve of a run as a picture: loss, figures of merit, and ε, round by round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from server.state import Evaluation, RoundSummary

NAMED_SITES_LIMIT = 6
"""With more sites than this, ε is drawn as a band from the lowest to the highest."""

MARKED_ROUNDS_LIMIT = 60
"""With more points than this, markers would run into one another."""

# Okabe and Ito's colours, told apart with any colour vision; line and marker differ too, for print in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ("-", "v"), ("--", "P"), ("-.", "X"))
_LOSS = "_loss"

Curves = Mapping[str, Sequence[float]]


def metric_name(name: str) -> str:
    """A figure's name as people write it: `test_auc` is "test AUC"."""
    return " ".join(word.upper() if word in {"auc", "f1"} else word for word in name.split("_"))


def learning_curve(rounds: Sequence[RoundSummary], chosen_round: int, epsilon_by_site: Curves) -> bytes:
    """Draw a run as PNG bytes.

    Guarantees:
        No global state of matplotlib is touched. Equal arguments give equal pixels.

    Edge cases:
        Metrics that end in `_loss` are drawn with the validation loss; others only where they lie in 0..1. A line
        passes over rounds without a figure, and marks those that have one unless there are very many. Where ε is
        infinite the panel says that there is no guarantee.

    Args:
        rounds: The run, round by round; not empty.
        chosen_round: Marked as the round of the result.
        epsilon_by_site: ε after each round, by site.
    """
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    FigureCanvasAgg(figure)  # attaches itself; pyplot, with its global state, is not involved
    loss, merit, budget = figure.subplots(3, 1, sharex=True, height_ratios=[4, 4, 3])
    losses, merits = _split(_curves(rounds))
    _draw(loss, losses, "loss (nats)")
    _draw(merit, merits, "figure of merit")
    _draw_budget(budget, epsilon_by_site)
    for panel in (loss, merit, budget):
        _mark_rounds(panel, rounds, chosen_round)
    loss.set_title(_title(rounds, chosen_round), fontsize=12)
    figure.align_ylabels()
    budget.set_xlabel("round")
    budget.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    budget.set_xlim(0.5, len(rounds) + 0.5)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _title(rounds: Sequence[RoundSummary], chosen_round: int) -> str:
    return f"Learning curve (dotted: round {chosen_round}, the result{_why_grey(rounds)})"


def _why_grey(rounds: Sequence[RoundSummary]) -> str:
    if all(summary.applied for summary in rounds):
        return ""
    return f"; grey: {'lost' if any(summary.abort for summary in rounds) else 'too few sites'}, nothing changed"


def _curves(rounds: Sequence[RoundSummary]) -> dict[str, list[float]]:
    """Every figure that some round has, by name, with NaN where a round has none."""
    evaluations = [summary.validation for summary in rounds]
    names = sorted({name for evaluation in evaluations if evaluation is not None for name in evaluation.metrics})
    curves = {"validation_loss": [math.nan if evaluation is None else evaluation.loss for evaluation in evaluations]}
    return curves | {name: [_metric(evaluation, name) for evaluation in evaluations] for name in names}


def _metric(evaluation: Evaluation | None, name: str) -> float:
    return math.nan if evaluation is None else evaluation.metrics.get(name, math.nan)


def _split(curves: Curves) -> tuple[Curves, Curves]:
    """Losses on one side, figures of merit on the other."""
    losses = {name: values for name, values in curves.items() if name.endswith(_LOSS)}
    merits = {name: values for name, values in curves.items() if name not in losses and _is_share(values)}
    return losses, merits


def _is_share(values: Sequence[float]) -> bool:
    return all(0 <= value <= 1 for value in values if not math.isnan(value))


def _draw(panel: Axes, curves: Curves, label: str, name_of: Callable[[str], str] = metric_name) -> None:
    panel.set_ylabel(label)
    panel.grid(alpha=0.3)
    drawn = {name: values for name, values in curves.items() if not all(map(math.isnan, values))}
    for (name, values), colour, (line, marker) in zip(drawn.items(), cycle(_COLOURS), cycle(_STYLES), strict=False):
        numbers = [number for number, value in enumerate(values, start=1) if not math.isnan(value)]
        shown = [values[number - 1] for number in numbers]
        marks = marker if len(numbers) <= MARKED_ROUNDS_LIMIT else None
        panel.plot(numbers, shown, label=name_of(name), color=colour, linestyle=line, marker=marks, markersize=4)
    if drawn:
        panel.legend(fontsize=9, ncols=3, framealpha=0.8)
    else:
        _say(panel, "no public set was judged")


def _say(panel: Axes, sentence: str) -> None:
    panel.text(0.5, 0.5, sentence, transform=panel.transAxes, ha="center", va="center", color="0.4")
    panel.set_yticks([])


def _draw_budget(panel: Axes, epsilon_by_site: Curves) -> None:
    panel.set_ylabel("ε spent")
    values = [value for curve in epsilon_by_site.values() for value in curve]
    if not values or not all(map(math.isfinite, values)):
        _say(panel, "no noise, no guarantee: ε is infinite" if values else "no ε was recorded")
    elif len({tuple(curve) for curve in epsilon_by_site.values()}) == 1:
        count = len(epsilon_by_site)
        label = f"each of {count} sites" if count > 1 else next(iter(epsilon_by_site))
        _draw(panel, {label: next(iter(epsilon_by_site.values()))}, "ε spent", str)
    elif len(epsilon_by_site) <= NAMED_SITES_LIMIT:
        _draw(panel, epsilon_by_site, "ε spent", str)
    else:
        _draw_band(panel, epsilon_by_site)
    panel.set_ylim(bottom=0)


def _draw_band(panel: Axes, epsilon_by_site: Curves) -> None:
    columns = list(zip(*epsilon_by_site.values(), strict=True))
    numbers = range(1, len(columns) + 1)
    lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
    label = f"lowest to highest of {len(epsilon_by_site)} sites"
    panel.fill_between(numbers, lowest, highest, color=_COLOURS[0], alpha=0.4, label=label)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9)


def _mark_rounds(panel: Axes, rounds: Sequence[RoundSummary], chosen_round: int) -> None:
    """The result's round, and rounds that changed nothing for lack of sites."""
    panel.axvline(chosen_round, color="0.3", linestyle=":", linewidth=1.2)
    for summary in rounds:
        if not summary.applied:
            panel.axvspan(summary.round_number - 0.5, summary.round_number + 0.5, color="0.88", linewidth=0, zorder=0)
    panel.spines[["top", "right"]].set_visible(False)
