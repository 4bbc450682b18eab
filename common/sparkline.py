"""A curve in one line of text."""

from __future__ import annotations

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def sparkline(values: Sequence[float]) -> str:
    """The last values as block characters, lowest to highest; empty where there are none."""
    shown = values[-_WIDTH:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown)
