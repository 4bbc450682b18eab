"""Reproducible randomness; it exists in tests only."""

import numpy as np

from common.randomness import public_generator


class SeededSource:
    """A `RandomSource` that anyone can make again."""

    def __init__(self, seed: int) -> None:
        self._generator = public_generator(seed, "test source")

    def uniform(self, count: int) -> np.ndarray:
        """As `RandomSource.uniform`."""
        return self._generator.uniform(2.0**-53, 1.0, count)
