"""Federated averaging, with momentum at the server where the plan asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.aggregation.base import Moments, Vector, mean_update

MOMENTUM = "momentum"


@dataclass(frozen=True)
class FedAvg:
    """m <- β m + Δ; w <- w + η m.

    Edge cases:
        With η = 1 and β = 0 the change is the plain mean of the updates, and no moments are kept.

    Args:
        learning_rate: η.
        momentum: β, in [0, 1).

    Source: McMahan et al. 2017, Algorithm 1, with equal weights; momentum as in Hsu et al. 2019, section 4.3 (FedAvgM).
    """

    learning_rate: float
    momentum: float

    def initial(self, dimension: int) -> Moments:
        """The momentum, zero; nothing when β = 0."""
        return {MOMENTUM: np.zeros(dimension)} if self.momentum else {}

    def apply(self, weights: Vector, total: Vector, count: int, moments: Moments) -> tuple[Vector, Moments]:
        """One server step; see `Aggregator.apply`."""
        step = mean_update(total, count)
        if not self.momentum:
            return weights + self.learning_rate * step, {}
        step = self.momentum * moments[MOMENTUM] + step
        return weights + self.learning_rate * step, {MOMENTUM: step}
