"""A comparison as a picture: one row an arm, one mark an ε, a bar for the spread over seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "D")
_PUBLIC_COLOUR = "#000000"

Point = tuple[float | None, float, float]
"""ε (None without privacy), mean, standard deviation over seeds."""


def comparison_picture(title: str, series: Mapping[str, Sequence[Point]]) -> bytes:
    """Draw the arms as PNG bytes, best at the top as they come.

    Args:
        title: Metric, set and unit.
        series: Points of each arm.
    """
    figure = Figure(figsize=(8, 0.55 * len(series) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    levels = sorted({point[0] for points in series.values() for point in points if point[0] is not None})
    for row, points in enumerate(series.values()):
        for place, (spent, mean, spread) in enumerate(points):
            index = None if spent is None else levels.index(spent)
            height = row + 0.16 * (place - (len(points) - 1) / 2)
            axes.errorbar(mean, height, xerr=spread, capsize=3, **_style(index))
            axes.annotate(
                f"{mean:.3f}", (mean + spread, height), xytext=(7, -3), textcoords="offset points", fontsize=8
            )
    axes.set_yticks(range(len(series)), labels=list(series))
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.08)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(title)
    for index, level in enumerate(levels):
        axes.plot(
            [], [], linestyle="none", label=f"ε = {level:g}", marker=_MARKERS[index % 4], color=_COLOURS[index % 4]
        )
    axes.plot([], [], linestyle="none", label="no privacy", marker="*", color=_PUBLIC_COLOUR)
    figure.legend(loc="outside upper right", ncols=len(levels) + 1, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _style(index: int | None) -> dict[str, Any]:
    if index is None:
        return {"marker": "*", "color": _PUBLIC_COLOUR}
    return {"marker": _MARKERS[index % 4], "color": _COLOURS[index % 4]}
