"""A sum of updates that does not depend on the order in which they came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

VALUE_LIMIT = 2.0**13
"""Largest absolute value of one number in an update; a change of 8192 in one round is no training."""

SITE_LIMIT = 2**14
"""Most updates in one sum: SITE_LIMIT x VALUE_LIMIT x 2^36 = 2^63, so the integers cannot overflow."""

_SCALE = 2.0**36


class RunningSum:
    """Sum and count of updates; no single update is kept.

    Floating-point addition depends on the order of arrival, and a run that is resumed or repeated would then differ in
    its last bits. So each value is rounded to a multiple of 2^-36 and added as an integer, which is exact.

    Guarantees:
        Equal updates in any order give equal bits. Error of the sum: at most 2^-37 a value and site (7e-12), and none
        for values of at least 2^-13, whose float32 spacing is a multiple of 2^-36.

    Args:
        dimension: d, length of every update.
    """

    def __init__(self, dimension: int) -> None:
        self._sum = np.zeros(dimension, dtype=np.int64)
        self.count = 0

    @staticmethod
    def can_take(update: npt.NDArray[np.float32]) -> bool:
        """Whether every value is within `VALUE_LIMIT`; NaN and infinity are not."""
        return bool((np.abs(update) < VALUE_LIMIT).all())

    def add(self, update: npt.NDArray[np.float32]) -> None:
        """Add one update, shape `[d]`.

        Raises:
            ValueError: When a value is too large or not finite, the length is another, or there were too many updates.
        """
        if update.shape != self._sum.shape or not self.can_take(update) or self.count >= SITE_LIMIT:
            raise ValueError("an update has another length or a value out of range, or there are too many")
        self._sum += np.rint(update.astype(np.float64) * _SCALE).astype(np.int64)
        self.count += 1

    @property
    def total(self) -> npt.NDArray[np.float64]:
        """The sum, shape `[d]`."""
        return self._sum.astype(np.float64) / _SCALE
