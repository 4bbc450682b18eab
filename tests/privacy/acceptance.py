"""What a sampler, a noise source, a clipper and a step must pass; the planted faults must not.

Each function returns the names of the properties that it found broken, so that a test can ask for the right one.
Every statistical property is tested so that a right mechanism is rejected with probability `FALSE_POSITIVE` at most
(chi-square and Kolmogorov-Smirnov quantiles; the tests' sources are seeded, so a pass stays a pass).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from common.privacy.plan import PrivacyPlan

FALSE_POSITIVE = 1e-6

Step = Callable[[], tuple[int, np.ndarray, np.ndarray]]


def sampler_faults(draws: Sequence[np.ndarray], rate: float, units: int) -> set[str]:
    """Is every unit in a draw with probability `rate`, independent of all else?

    Args:
        draws: Index arrays of many draws from one sampler.
        rate: The plan's q.
        units: N; with N * rate of a few, empty draws are frequent enough to be counted.
    """
    taken = np.zeros((len(draws), units))
    for row, drawn in zip(taken, draws, strict=True):
        np.add.at(row, drawn, 1)
    sizes = taken.sum(axis=1)
    spread = units * rate * (1 - rate)
    neighbours = (taken[1:] - rate) * (taken[:-1] - rate)
    checks = {
        "a unit twice in one draw": taken.max() <= 1,
        "batch size mean": _within_normal(sizes.mean(), units * rate, math.sqrt(spread / len(draws))),
        "batch size variance": _within_chi_square(((sizes - units * rate) ** 2).sum() / spread, len(draws)),
        "batch size distribution": _histogram_fits(sizes.astype(int), stats.binom(units, rate).pmf),
        "empty draws": _within_binomial(int((sizes == 0).sum()), len(draws), (1 - rate) ** units),
        "unit frequency": _within_chi_square(_standardised(taken.sum(axis=0), len(draws), rate), units),
        "consecutive draws": _within_normal(neighbours.mean(), 0.0, rate * (1 - rate) / math.sqrt(neighbours.size)),
    }
    return {name for name, holds in checks.items() if not holds}


def noise_faults(samples: np.ndarray, scale: float) -> set[str]:
    """Is this noise N(0, scale²) rounded to whole numbers, each value fresh? For scales of many grid steps."""
    deviation = math.sqrt(scale**2 + 1 / 12)
    half = len(samples) // 2
    product = (samples[:half] / deviation) * (samples[half : 2 * half] / deviation)
    checks = {
        "whole numbers": bool((samples == np.rint(samples)).all()),
        "mean": _within_normal(samples.mean(), 0.0, deviation / math.sqrt(len(samples))),
        "variance": _within_chi_square(((samples / deviation) ** 2).sum(), len(samples)),
        "normal shape": stats.kstest(samples / deviation, "norm").pvalue > FALSE_POSITIVE,
        "fresh values": _within_normal(product.mean(), 0.0, 1 / math.sqrt(half)),
    }
    return {name for name, holds in checks.items() if not holds}


def clipping_faults(clipped: np.ndarray, plan: PrivacyPlan) -> set[str]:
    """Is every row's norm, in Python's unbounded integers, within the bound?"""
    norms = [sum(int(value) ** 2 for value in row) for row in clipped]
    checks = {
        "integers": clipped.dtype == np.int64,
        "norm bound": all(norm <= plan.clip_bound**2 for norm in norms),
    }
    return {name for name, holds in checks.items() if not holds}


def divisor_faults(step: Step, plan: PrivacyPlan, tries: int) -> set[str]:
    """Is a step without noise its clipped sum over the public divisor, however many units it drew?

    Args:
        step: Returns how many units were drawn, their clipped sum `[d]`, and the mean that was released `[d]`.
        plan: Constants of the mechanism; without noise, so that the mean can be compared.
        tries: Enough that draws of different sizes occur; too few is itself a fault.
    """
    sizes, right = set(), True
    for _ in range(tries):
        size, total, mean = step()
        sizes.add(size)
        right = right and np.allclose(mean * plan.divisor, total * plan.grid_step, rtol=1e-12, atol=0.0)
    checks = {"several batch sizes": len(sizes) > 1, "public divisor": right}
    return {name for name, holds in checks.items() if not holds}


def _standardised(counts: np.ndarray, trials: int, probability: float) -> float:
    return float(((counts - trials * probability) ** 2).sum() / (trials * probability * (1 - probability)))


def _within_normal(value: float, mean: float, deviation: float) -> bool:
    return abs(value - mean) <= deviation * stats.norm.isf(FALSE_POSITIVE / 2)


def _within_chi_square(value: float, degrees: int) -> bool:
    low, high = stats.chi2.ppf(FALSE_POSITIVE / 2, degrees), stats.chi2.isf(FALSE_POSITIVE / 2, degrees)
    return bool(low <= value <= high)


def _within_binomial(count: int, trials: int, probability: float) -> bool:
    return stats.binomtest(count, trials, probability).pvalue > FALSE_POSITIVE


def _histogram_fits(values: np.ndarray, mass: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Chi-square goodness of fit over the values that are expected at least ten times; the rest are one cell."""
    support = np.arange(values.min() - 50, values.max() + 51)
    expected = mass(support) * len(values)
    frequent = expected >= 10
    seen = np.array([(values == value).sum() for value in support[frequent]])
    seen = np.append(seen, len(values) - seen.sum())
    wanted = np.append(expected[frequent], len(values) - expected[frequent].sum())
    statistic = ((seen - wanted)[wanted > 1] ** 2 / wanted[wanted > 1]).sum()
    return bool(statistic <= stats.chi2.isf(FALSE_POSITIVE, int((wanted > 1).sum()) - 1))
