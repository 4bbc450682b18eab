"""Adaptive server rules: FedAdam and FedYogi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from server.aggregation.base import Moments, Vector, mean_update

FIRST = "first_moment"
SECOND = "second_moment"


@dataclass(frozen=True)
class FedOpt:
    """m <- β₁ m + (1 - β₁) Δ; v by the rule's own line; w <- w + η m / (√v + τ), each value on its own.

        fedadam   v <- β₂ v + (1 - β₂) Δ²
        fedyogi   v <- v - (1 - β₂) Δ² sign(v - Δ²)

    There is no bias correction: the paper has none. Instead v starts at τ², its lowest allowed start, so that the first
    denominators are not near zero.

    Args:
        rule: Which line updates v.
        learning_rate: η.
        momentum: β₁, in [0, 1).
        second_moment: β₂, in [0, 1).
        adaptivity: τ, above 0.

    Source: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2.
    """

    rule: Literal["fedadam", "fedyogi"]
    learning_rate: float
    momentum: float
    second_moment: float
    adaptivity: float

    def initial(self, dimension: int) -> Moments:
        """Zero for m and τ² for v (Algorithm 2 asks for at least τ²)."""
        return {FIRST: np.zeros(dimension), SECOND: np.full(dimension, self.adaptivity**2)}

    def apply(self, weights: Vector, total: Vector, count: int, moments: Moments) -> tuple[Vector, Moments]:
        """One server step; see `Aggregator.apply`."""
        change = mean_update(total, count)
        first = self.momentum * moments[FIRST] + (1.0 - self.momentum) * change
        second = self._second(moments[SECOND], change**2)
        step = first / (np.sqrt(second) + self.adaptivity)
        return weights + self.learning_rate * step, {FIRST: first, SECOND: second}

    def _second(self, old: Vector, square: Vector) -> Vector:
        """The next v; never negative, since Yogi takes at most (1 - β₂) v away."""
        share = 1.0 - self.second_moment
        if self.rule == "fedyogi":
            return old - share * square * np.sign(old - square)
        return self.second_moment * old + share * square
