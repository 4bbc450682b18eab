"""What every server rule is: a pure function of what was added up over the sites.

A rule never sees one site's update, so none can be written for which secure aggregation would have to be switched off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Moments = Mapping[str, Vector]


class Aggregator(Protocol):
    """One server rule; holds public constants of the plan and no state.

    Guarantees (tests/server/aggregation/test_contract.py goes down this list for every implementation):
        In mode per-site only `total / count` matters: twice the sum of twice as many sites gives the same model. In
        mode distributed `total` is the mean gradient, divided by the plan's divisor, and the count does not matter. A
        total of zero leaves the weights as they are while the moments are the initial ones. Equal inputs give equal
        bits. Arguments are not changed. Every moment keeps its name and has the shape of the weights.
    """

    def initial(self, dimension: int) -> Moments:
        """Moments before the first round, each of shape `[dimension]`."""
        ...

    def apply(self, weights: Vector, total: Vector, count: int, moments: Moments) -> tuple[Vector, Moments]:
        """The next global model.

        Args:
            weights: Global model, shape `[d]`.
            total: Sum of the survivors' updates; in mode distributed the mean gradient. Shape `[d]`.
            count: Number of survivors, at least 1.
            moments: As `initial` or the last `apply` gave them.

        Returns:
            New weights and new moments.

        Raises:
            ValueError: When `count` is below 1: a step that nobody took part in has no meaning.
        """
        ...


def mean_update(total: Vector, count: int) -> Vector:
    """Δ, the mean over survivors. Every site weighs the same: its number of patients is private."""
    check_count(count)
    return total / count


def check_count(count: int) -> None:
    """Refuse to step without a survivor; raises ValueError."""
    if count < 1:
        raise ValueError(f"a step needs at least one site, not {count}")
