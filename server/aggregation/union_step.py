"""The rules of mode distributed: one step down the noisy gradient of all hospitals together.

They are `torch.optim.SGD` and `torch.optim.Adam` in NumPy, so that a run is DP-SGD on the pooled data step by step.
Here `total` is a mean gradient already: the sum was divided by the plan's public divisor when it was decoded. A second
division by the number of survivors would make the step depend on who happened to drop out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.aggregation.base import Moments, Vector, check_count

VELOCITY = "velocity"
FIRST = "first_moment"
SECOND = "second_moment"
STEPS = "steps"

ADAM_EPSILON = 1e-8
"""Keeps Adam's denominator from 0; torch's default."""

Rates = tuple[tuple[slice, float], ...]
"""What a round trains, each slice of the model with its learning rate; whatever is outside stands still."""


@dataclass(frozen=True)
class UnionSgd:
    """v <- β v + g; w <- w - η v.

    Edge cases:
        Values outside `rates` keep weight and velocity, whatever `total` holds there.

    Args:
        rates: Slices that are trained in this round, with η of each.
        momentum: β, in [0, 1).

    Source: Sutskever et al. 2013, section 2, in the form of `torch.optim.SGD`: η is outside the velocity.
    """

    rates: Rates
    momentum: float

    def initial(self, dimension: int) -> Moments:
        """The velocity, zero."""
        return {VELOCITY: np.zeros(dimension)}

    def apply(self, weights: Vector, total: Vector, count: int, moments: Moments) -> tuple[Vector, Moments]:
        """One step of the union; see `Aggregator.apply`."""
        check_count(count)
        weights, velocity = weights.copy(), moments[VELOCITY].copy()
        for part, rate in self.rates:
            velocity[part] = self.momentum * velocity[part] + total[part]
            weights[part] -= rate * velocity[part]
        return weights, {VELOCITY: velocity}


@dataclass(frozen=True)
class UnionAdam:
    """m <- β₁ m + (1 - β₁) g; v <- β₂ v + (1 - β₂) g²; w <- w - η (m / (1 - β₁^t)) / (√(v / (1 - β₂^t)) + 10⁻⁸).

    t counts the steps that trained a value. It is kept for each value beside the moments, so that a round that was lost
    does not count, a part that joins later starts at t = 1 like a parameter that is new to torch, and a resumed run
    goes on as if nothing had happened.

    Edge cases:
        Values outside `rates` keep weight, moments and t, whatever `total` holds there.

    Args:
        rates: Slices that are trained in this round, with η of each.
        momentum: β₁, in [0, 1).
        second_moment: β₂, in [0, 1).

    Source: Kingma & Ba 2015, Algorithm 1.
    """

    rates: Rates
    momentum: float
    second_moment: float

    def initial(self, dimension: int) -> Moments:
        """Zero for m, v and t."""
        return {name: np.zeros(dimension) for name in (FIRST, SECOND, STEPS)}

    def apply(self, weights: Vector, total: Vector, count: int, moments: Moments) -> tuple[Vector, Moments]:
        """One step of the union; see `Aggregator.apply`."""
        check_count(count)
        weights, later = weights.copy(), {name: values.copy() for name, values in moments.items()}
        for part, rate in self.rates:
            later[STEPS][part] += 1
            later[FIRST][part] = _blend(self.momentum, later[FIRST][part], total[part])
            later[SECOND][part] = _blend(self.second_moment, later[SECOND][part], total[part] ** 2)
            weights[part] -= rate * self._direction({name: values[part] for name, values in later.items()})
        return weights, later

    def _direction(self, moments: Moments) -> Vector:
        first = moments[FIRST] / (1.0 - self.momentum ** moments[STEPS])
        second = moments[SECOND] / (1.0 - self.second_moment ** moments[STEPS])
        return first / (np.sqrt(second) + ADAM_EPSILON)


def _blend(decay: float, old: Vector, new: Vector) -> Vector:
    return decay * old + (1.0 - decay) * new
