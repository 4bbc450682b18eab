"""Gaussian noise on the integer grid, from secret randomness."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from common.privacy.plan import LARGEST_GAUSSIAN_SCALE
from common.randomness import RandomSource


def rounded_gaussian(scale: float, count: int, source: RandomSource) -> npt.NDArray[np.int64]:
    """Draw independent rounded normal variables: round(N(0, scale²)).

    Guarantees:
        *Same privacy as the continuous mechanism.* S is a vector of integers, so round(S + N) = S + round(N): what we
        release is the continuous Gaussian mechanism followed by a rounding, and a rounding is post-processing. The
        accountant of the continuous mechanism therefore holds without a correction.

        *No floating-point attack.* Noise added to a float sum leaks the sum through its low bits, because floats are
        spaced unevenly and which of them can occur depends on the sum (Mironov 2012). Here the addition is exact
        integer arithmetic: S and S' reach the same integers, and nothing below the grid is released.

        *Close to the ideal noise.* Each draw inverts the normal distribution at a uniform with 104 random bits. One
        with 52 leaves gaps beyond about 7 standard deviations: integers that one sum can reach and its neighbour
        cannot. A run of 10^7 values meets one with a probability near the usual δ, which the accountant would not
        know of. With 104 bits the tail ends at 11.8 standard deviations (5e-32 of the mass lies beyond), and up to
        there the probability of an integer is right to about scale * 1e-14, relatively: the accuracy of a float64
        quantile.

        *Independent* of the data, of the other values and of earlier calls, as far as ChaCha20 is.

    Edge cases:
        `scale` 0 gives exact zeros and draws nothing; `count` 0 gives an empty array.

    Not protected: how long the call takes, caches and memory. Its work does not branch on the values, but NumPy and
        SciPy promise no constant time.

    Args:
        scale: Standard deviation before rounding, in grid steps, 0 to 2^49. Rounding adds 1/12 to the variance.
        count: d, how many values.
        source: Secret randomness.

    Returns:
        Noise in grid steps, `[d]`.

    Raises:
        ValueError: When `scale` or `count` is out of range.

    Source: Mironov 2012, "On significance of the least significant bits for differential privacy"; Dwork & Roth 2014,
        proposition 2.1 (post-processing).
    """
    if not 0 <= scale <= LARGEST_GAUSSIAN_SCALE or count < 0:
        raise ValueError(f"noise needs a scale from 0 to 2^49 and a count from 0, not {scale!r} and {count!r}")
    if scale == 0:
        return np.zeros(count, dtype=np.int64)
    return np.rint(_normal(count, source) * scale).astype(np.int64)


def mirrored_uniform(count: int, source: RandomSource) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Uniform values of 104 random bits, of which the upper half of the interval is mirrored onto the lower.

    Guarantees:
        A distribution that is symmetric about 0 is drawn by its lower quantile at `lower` times the sign. Both tails
        are drawn at the lower end, near 0, where floats are dense; near 1 they are 2^-53 apart.

    Returns:
        `lower` from 2^-105 to 1/2, `[count]`, and `sign`, -1 or 1, `[count]`.
    """
    coarse, fine = np.split(source.uniform(2 * count), 2)
    # `fine` spreads each of the 2^52 coarse values evenly over its own cell.
    lower = np.minimum(coarse, 1 - coarse) + (fine - 0.5) * math.ldexp(1.0, -52)
    return lower, np.where(coarse < 0.5, -1.0, 1.0)


def _normal(count: int, source: RandomSource) -> npt.NDArray[np.float64]:
    """Standard normal values, `[count]`, whose tails are resolved as finely as their middle."""
    lower, sign = mirrored_uniform(count, source)
    quantile: npt.NDArray[np.float64] = ndtri(lower)
    return -quantile * sign
