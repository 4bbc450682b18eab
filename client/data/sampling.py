"""Poisson sampling of units: who takes part in a step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.randomness import RandomSource

_CHUNK_UNITS = 1 << 20


class PoissonSampler:
    """Draws every unit independently with the same public probability.

    The accountant's amplification holds for this draw and no other: a shuffled pass in batches of fixed size has a
    different, worse guarantee (docs/privacy-guarantees.md), although it looks the same on average.

    Guarantees:
        Each draw takes unit i with probability `rate`, independent of the other units and of earlier draws; the
        probability is exact to 2^-52. The drawn number is binomial and must not leave the site.

    Edge cases:
        Nobody drawn is an ordinary result, an empty array: the step is then noise alone. A rate of 1 draws everybody.
        No units at all: every draw is empty.

    Args:
        rate: q in (0, 1], a constant of the plan.
        units: N, how many patients (or records) this site has.
        source: Secret randomness; who was drawn is as private as the noise.

    Raises:
        ValueError: When `rate` or `units` is out of range.

    Source: Abadi et al. 2016, section 3.1 ("lots" by independent picks).
    """

    def __init__(self, rate: float, units: int, source: RandomSource) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"a sampling rate lies above 0 and at most at 1, not at {rate!r}")
        if units < 0:
            raise ValueError("the number of units must not be negative")
        self._rate = rate
        self._units = units
        self._source = source

    def __repr__(self) -> str:
        return f"PoissonSampler(rate={self._rate!r}, units hidden)"

    def draw(self) -> npt.NDArray[np.int64]:
        """Indices of the drawn units, increasing, `[k]`; k may be 0."""
        starts = range(0, self._units, _CHUNK_UNITS)
        return np.concatenate([np.empty(0, dtype=np.int64), *(self._draw_chunk(start) for start in starts)])

    def _draw_chunk(self, start: int) -> npt.NDArray[np.int64]:
        # Every unit costs the same work, drawn or not; skipping ahead by geometric gaps would be faster, but takes a
        # logarithm's rounding into the probability.
        count = min(_CHUNK_UNITS, self._units - start)
        return np.flatnonzero(self._source.uniform(count) < self._rate) + start
