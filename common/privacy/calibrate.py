"""The smallest noise that keeps a target ε."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq

from common.errors import ConfigError, Problem
from common.plan import PrivacyConfig
from common.privacy.accountant import epsilon
from common.privacy.plan import Noise, PrivacyPlan, largest_noise_multiplier

# Noise multipliers are whole multiples of 1e-4, so that a plan shows the number that ran.
_PER_UNIT = 10_000
# Below this ε is in the thousands whatever the plan; above it no gradient survives.
SMALLEST_NOISE = 0.01
LARGEST_NOISE = 1000.0
# Stands for a cost of 0 under a logarithm.
_SMALLEST_COST = 1e-12


def noise_for(
    target_epsilon: float, privacy: PrivacyConfig, steps: int, *, noise: Noise = "gaussian", noise_shares: int = 1
) -> float:
    """Find the smallest noise multiplier under which `steps` steps cost at most `target_epsilon`.

    Guarantees:
        `epsilon` of the result is at most the target; that of the next smaller multiple of 1e-4 is above it, unless
        the result is `SMALLEST_NOISE`.

    Edge cases:
        No steps need no noise beyond `SMALLEST_NOISE`: this never returns 0.

    Args:
        target_epsilon: ε of the whole run at one site, positive.
        privacy: The other constants of the mechanism.
        steps: T, noisy steps of the whole run at one site.
        noise: gaussian or skellam.
        noise_shares: n - d - c honest shares; they bound how much noise fits the grid, and do not change ε.

    Returns:
        σ of the whole accounted noise, a multiple of 1e-4.

    Raises:
        ConfigError: When no noise multiplier up to `LARGEST_NOISE`, and that the grid allows, reaches the target.
    """

    def cost(ticks: int) -> float:
        sigma = ticks / _PER_UNIT
        return epsilon(PrivacyPlan.from_config(privacy, sigma, steps, noise=noise, noise_shares=noise_shares))

    largest = min(LARGEST_NOISE, largest_noise_multiplier(privacy.grid_bits, noise, noise_shares))
    low, high = round(SMALLEST_NOISE * _PER_UNIT), math.floor(largest * _PER_UNIT)
    if not 0 < target_epsilon < math.inf or cost(high) > target_epsilon:
        raise _out_of_reach(target_epsilon, largest)
    if cost(low) <= target_epsilon:
        return low / _PER_UNIT
    ticks = _near_root(cost, target_epsilon, low, high)
    # The root finder lands within a tick or two; these walks make the promise exact.
    while cost(ticks) > target_epsilon:
        ticks += 1
    while cost(ticks - 1) <= target_epsilon:
        ticks -= 1
    return ticks / _PER_UNIT


def _near_root(cost: Callable[[int], float], target: float, low: int, high: int) -> int:
    """Ticks at which the cost crosses the target, found on logarithmic axes, where the curve is nearly straight."""

    def gap(log_ticks: float) -> float:
        return math.log(max(cost(round(math.exp(log_ticks))), _SMALLEST_COST) / target)

    root = brentq(gap, math.log(low), math.log(high), xtol=1e-5)
    return min(max(round(math.exp(root)), low), high)


def _out_of_reach(target: float, largest: float) -> ConfigError:
    rule = f"no noise multiplier up to {largest:.4g} reaches it"
    hint = "raise `privacy.epsilon`, or lower `rounds`, `local_steps` or `privacy.sampling_rate`"
    if largest < LARGEST_NOISE:
        hint += f"; or lower `privacy.grid_bits`, which is what bounds the noise at {largest:.4g}"
    return ConfigError("the target ε is out of reach", (Problem("privacy.epsilon", rule, repr(target), hint),))
