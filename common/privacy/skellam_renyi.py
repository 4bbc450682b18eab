"""Rényi divergences of the Poisson-subsampled Skellam mechanism.

The theorem and its proof are in docs/privacy-guarantees.md, section "Mode distributed".
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp, xlog1py, xlogy

from common.privacy.plan import PrivacyPlan

# Large ε have their best order below 5, where whole numbers are too coarse; small ones near log(1 / δ) / ε.
SKELLAM_ORDERS: tuple[float, ...] = (
    *(tenth / 10 for tenth in range(11, 110)),
    *range(11, 65),
    *(72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024),
)

Floats = npt.NDArray[np.float64]


def skellam_epsilon(plan: PrivacyPlan, steps: int) -> float:
    """ε at the plan's δ after `steps` steps of the Poisson-subsampled Skellam mechanism.

    Guarantees:
        An upper bound under adding or removing one unit, for a number of steps fixed in advance, whatever each step
        chose after seeing the earlier ones. Holds in every dimension: no dimension enters.

    Args:
        plan: The mechanism; its noise, above 0, is that of `noise_shares` honest shares together.
        steps: Noisy sums that were released, at least 1.

    Returns:
        ε, at least 0.

    Source: composition by Mironov 2017, proposition 1; conversion by Canonne, Kamath & Steinke 2020, proposition 12:
        ε = min over α of T·ε_q(α) + log(1 - 1/α) - (log δ + log α) / (α - 1).
    """
    orders = np.array(SKELLAM_ORDERS)
    spent = steps * np.array(step_divergences(plan))
    converted = spent + np.log1p(-1 / orders) - (math.log(plan.delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(converted.min()))


@lru_cache(maxsize=1024)
def step_divergences(plan: PrivacyPlan, orders: tuple[float, ...] = SKELLAM_ORDERS) -> tuple[float, ...]:
    """A bound on the Rényi divergence of one step at each order, the larger of both directions.

    Args:
        plan: The mechanism, with noise above 0.
        orders: α, above 1.

    Returns:
        ε_q(α) for each order, infinite where the expansion says nothing.
    """
    whole = np.arange(math.ceil(max(orders)) + 1, dtype=np.float64)
    unsampled = unsampled_divergence(whole, plan.clip_bound, plan.noise_scale**2)
    return tuple(sampled_divergence(order, plan.sampling_rate, unsampled) for order in orders)


def unsampled_divergence(orders: Floats, bound: float, variance: float) -> Floats:
    """Bound on the Rényi divergence between Skellam noise and the same noise moved by one unit's contribution.

    With Δ₂ the bound on the L2 norm of an integer vector and v the variance,

        ε(α) = α·Δ₂² / (2v) + min( ((2α - 1)·Δ₂² + 6·Δ₁) / (4v²), 3·Δ₁ / (2v) ),

    where Δ₁ ≤ Δ₂² because |z| ≤ z² for every whole number z. With σ = √v / Δ₂ that is α / (2σ²), the Gaussian's, and a
    correction that falls with the grid as 4^-b.

    Args:
        orders: Whole orders α; the bound is stated for α ≥ 2, shape `[A]`.
        bound: Δ₂, in grid steps.
        variance: v above 0, in squared grid steps.

    Returns:
        Divergences, `[A]`.

    Source: Agarwal, Kairouz & Liu 2021, "The Skellam mechanism for differentially private federated learning",
        section 3; v is the variance of the noise.
    """
    squared = float(bound) ** 2
    near = ((2 * orders - 1) * squared + 6 * squared) / (4 * variance**2)
    return orders * squared / (2 * variance) + np.minimum(near, 3 * squared / (2 * variance))


def sampled_divergence(order: float, rate: float, unsampled: Floats) -> float:
    """Bound on the Rényi divergence under Poisson sampling, from the unsampled ones at whole orders.

    With M_l = e^((l-1)·ε(l)) the l-th moment of the unsampled likelihood ratio (M_0 = M_1 = 1) and n = ⌈α⌉,

        (α - 1)·ε_q(α) = log Σ_(l=0..n) C(α, l)·(1 - q)^(α-l)·q^l·M_l.

    At whole orders that is the binomial theorem. Between them it is the Taylor polynomial of (1 - q + q·r)^α at r = 0;
    its coefficients are positive and the derivative after the last is negative, so that it lies above the function.
    Without sampling (q = 1) only whole orders give a finite value.

    Args:
        order: α above 1.
        rate: q in (0, 1].
        unsampled: ε(l) at l = 0 to ⌈α⌉ or beyond; the first two are not read, shape `[L]`.

    Returns:
        ε_q(α), at least 0.

    Source: Mironov, Talwar & Zhang 2019, section 3.3 for whole orders; the rest is proved in the documentation.
    """
    taken = np.arange(math.ceil(order) + 1, dtype=np.float64)
    log_weight = gammaln(order + 1) - gammaln(taken + 1) - gammaln(order - taken + 1)
    log_weight += xlog1py(order - taken, -rate) + xlogy(taken, rate)
    log_moment = np.where(taken < 2, 0.0, (taken - 1) * unsampled[: len(taken)])
    # The sum is at least 1; rounding may show it a little below.
    return max(0.0, float(logsumexp(log_weight + log_moment))) / (order - 1)
