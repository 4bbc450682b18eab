"""Skellam noise on the integer grid, from secret randomness: one site's share of the noise of mode distributed."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ive, ndtri

from client.training.noise import mirrored_uniform
from common.privacy.plan import LARGEST_SKELLAM_SCALE
from common.randomness import RandomSource

Floats = npt.NDArray[np.float64]

# The smallest value of `mirrored_uniform` is 2^-105; the table ends where less than 2^-106 is left.
_TAIL = 106 * math.log(2)
_BLOCK = 1 << 20
# From this variance on, four terms of the expansion leave a relative error below 1e-14.
_LARGE_VARIANCE = 500.0


def skellam(variance: float, count: int, source: RandomSource) -> npt.NDArray[np.int64]:
    """Draw independent Skellam variables: the difference of two Poisson variables of mean variance / 2 each.

    Guarantees:
        *Shares add up exactly.* The sum of m independent draws is a Skellam variable of variance m * `variance`,
        because Poisson variables add up. So the sum over honest sites is the very noise that the accountant is about,
        whoever dropped out; rounded Gaussians have no such law.

        *Integers.* Sum and noise are added in whole numbers, so that no floating-point low bits can tell the sum.

        *Close to the ideal noise.* Each draw inverts the distribution at a uniform with 104 random bits, lower tail
        only, the upper by symmetry. The table of the distribution comes from the probabilities e^-v I_k(v), right to
        5e-14 relatively. A draw never goes beyond the value whose tail is 2^-105 (11.8 standard deviations for large
        variances, more for small ones): a mass of 2^-104 in all. Inside, the probability of an integer is right to
        about 1e-13 + 4e-16 * √variance relatively, the accuracy of a float64 on the distribution, and to 2^-105
        absolutely.

        *Independent* of the data, of the other values and of earlier calls, as far as ChaCha20 is.

    Edge cases:
        `variance` 0 gives exact zeros and draws nothing; `count` 0 gives an empty array. The first call for a variance
        builds its table, 12 * √variance floats: 0.1 s at √variance = 65,536, and 2 s and 100 MiB at the limit. The
        last two tables are kept.

    Not protected: how long the call takes, caches and memory. Its table is read at places that depend on the noise,
    and values that the first guess misses are searched again: a neighbour on the same machine who can watch caches
    may learn about the noise. It is not constant in time.

    Args:
        variance: v of one draw in squared grid steps, 0 to 2^40: `PrivacyPlan.share_variance`.
        count: d, how many values.
        source: Secret randomness.

    Returns:
        Noise in grid steps, `[d]`.

    Raises:
        ValueError: When `variance` or `count` is out of range.

    Source: Skellam 1946 for the law; Agarwal, Kairouz & Liu 2021 for its use; NIST DLMF 10.41.3 for the expansion.
    """
    # A share at the limit of a plan may lie a rounding beyond it.
    if not 0 <= variance <= LARGEST_SKELLAM_SCALE**2 * (1 + 1e-9) or count < 0:
        raise ValueError(f"noise needs a variance from 0 to 2^40 and a count from 0, not {variance!r} and {count!r}")
    if variance == 0:
        return np.zeros(count, dtype=np.int64)
    lower, sign = mirrored_uniform(count, source)
    return _magnitudes(lower, variance) * sign.astype(np.int64)


def log_probability(values: Floats, variance: float) -> Floats:
    """Logarithm of the Skellam probabilities e^-v I_|k|(v) at the whole numbers `values`, shape `[K]`.

    Right to 5e-14 wherever a probability is above 2^-106. Large variances by the expansion of I that is uniform in its
    order, arranged so that nothing cancels: with s = √(k² + v²) and t = k / s,

        log p(k) = -c(k) - log(2π s) / 2 + log(1 + u₁ / s + u₂ / s² + u₃ / s³ + u₄ / s⁴)

    where c is `_chernoff` and u_j are even polynomials in t.

    Source: NIST DLMF 10.41.3 and 10.41.10.
    """
    if variance < _LARGE_VARIANCE:
        scaled: Floats = ive(np.abs(values), variance)
        return np.log(scaled)
    s = np.hypot(values, variance)
    t = np.square(values / s)
    series = (
        (3 - 5 * t) / 24 / s
        + (81 + t * (-462 + t * 385)) / 1152 / s**2
        + (30375 + t * (-369603 + t * (765765 - t * 425425))) / 414720 / s**3
        + (4465125 + t * (-94121676 + t * (349922430 + t * (-446185740 + t * 185910725)))) / 39813120 / s**4
    )
    logarithm: Floats = np.log1p(series) - np.log(2 * math.pi * s) / 2 - _chernoff(values, variance)
    return logarithm


def _chernoff(values: Floats, variance: float) -> Floats:
    """c(k) with P(X ≥ k) ≤ e^-c(k): k·asinh(k/v) - (√(k² + v²) - v), the difference without cancellation."""
    exponent: Floats = values * np.arcsinh(values / variance)
    return exponent - np.square(values) / (np.hypot(values, variance) + variance)


def _magnitudes(lower: Floats, variance: float) -> npt.NDArray[np.int64]:
    """|X| for each value of the lower tail: the number of m ≥ 1 with P(X ≥ m) at least that value."""
    edges = _edges(variance)
    outermost = len(edges) - 2
    # The normal quantile is right for nearly all values at large variances. It only saves time: what it misses, the
    # search below finds.
    guess: npt.NDArray[np.int64] = np.rint(-ndtri(lower) * math.sqrt(variance)).astype(np.int64)
    cell = outermost - np.minimum(guess, outermost)
    missed = np.flatnonzero((lower <= edges[cell]) | (lower > edges[cell + 1]))
    cell[missed] = np.searchsorted(edges, lower[missed]) - 1
    return outermost - cell


@lru_cache(maxsize=2)
def _edges(variance: float) -> Floats:
    """Tail probabilities P(X ≥ m) from the outermost m down to 1, between a 0 and a 1/2; rising, `[m + 2]`.

    Half of P(X = 0) belongs to either side, so that the cell which ends at 1/2 is that of 0.
    """
    mass = np.arange(_reach(variance), -1.0, -1.0)
    # In place and in blocks: at the limit a table has 100 MiB, and the expansion would need ten such arrays.
    for block in np.array_split(mass, len(mass) // _BLOCK + 1):
        np.exp(log_probability(block, variance), out=block)
    tail = np.cumsum(mass[:-1])
    # A million additions and the expansion are off by 1e-13; spread over all values, it does not fall on 0 alone.
    tail /= 2 * tail[-1] + mass[-1]
    edges = np.concatenate([[0.0], tail, [0.5]])
    edges.setflags(write=False)
    return edges


def _reach(variance: float) -> int:
    """Smallest m ≥ 1 with P(X ≥ m) < 2^-106, by the Chernoff bound, which is convex and 0 at 0."""

    def excess(value: float) -> float:
        return float(_chernoff(np.array([value]), variance)[0]) - _TAIL

    if excess(1.0) > 0:
        return 1
    return math.ceil(float(brentq(excess, 1.0, 2 * _TAIL + 13 * math.sqrt(variance))))
