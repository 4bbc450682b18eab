"""A Rényi filter at one order: how much a budget of (ε, δ) holds, and what a mechanism takes out of it.

The report of a run may use the tightest accountant, because its plan was fixed in advance. A hospital's budget must
also hold when later runs are chosen after looking at earlier models, and stopping on composed privacy loss
distributions is not valid there. Adding up Rényi divergences at one order that was fixed beforehand is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.privacy.plan import PrivacyPlan
from common.privacy.skellam_renyi import unsampled_divergence

FILTER_ORDERS: tuple[int, ...] = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024)
"""Orders to choose from; whole, because there the divergence under sampling is a finite sum of positive terms."""

_TYPICAL = PrivacyPlan("patient", 0.05, 400, 1.0, 1.0, 1.0, 1e-5, 16)
_LEAST_NOISE, _MOST_NOISE = 0.1, 1e4
_HALVINGS = 12  # of the logarithm: noise to a third of a percent, far more than it takes to tell two orders apart

# Costs are rounded up by more than a float64 sum of a thousand terms can be wrong, and limits are not rounded up.
_ROUNDING = 1 + 1e-12


@dataclass(frozen=True)
class RenyiFilter:
    """Admits mechanisms one after the other, as long as their divergences at one order add up to at most a limit.

    Guarantees:
        Whatever is admitted, in whatever order, each mechanism and its constants chosen after seeing all that the
        earlier ones released, the whole is (ε, δ)-differentially private under adding or removing one unit. That holds
        for mechanisms whose steps take turns, too: each step is a mechanism of its own whose cost was set aside.

    Edge cases:
        Where δ is too large a part of the order for this ε, the limit is not positive and nothing is admitted. A
        mechanism without noise costs infinity and is never admitted. Where ε or δ is changed while the order stays,
        what was admitted before keeps its cost. A change that was decided because of what was released makes it a
        promise for the largest (ε, δ) that one would have gone to, not for the one where one happened to stop.

    Args:
        epsilon: ε above 0.
        delta: δ in (0, 1).
        order: α, a whole number from 2 to 1024, fixed before the first mechanism and for good.

    Raises:
        ConfigError: When a value is out of its range.

    Source: Feldman & Zrnic 2021, "Individual privacy accounting via a Rényi filter", fully adaptive composition and the
        filter built on it; Rogers, Roth, Ullman & Vadhan 2016 for what a filter promises, and an odometer would have
        to; Haney et al. 2023 for mechanisms that take turns; Canonne, Kamath & Steinke 2020, proposition 12, for the
        conversion.
    """

    epsilon: float
    delta: float
    order: int

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ConfigError(f"ε of a budget must be finite and above 0, not {self.epsilon!r}")
        if not 0 < self.delta < 1:
            raise ConfigError(f"δ of a budget must lie between 0 and 1, not {self.delta!r}")
        if type(self.order) is not int or not 2 <= self.order <= FILTER_ORDERS[-1]:
            raise ConfigError(f"the order of a budget must be a whole number from 2 to 1024, not {self.order!r}")

    @classmethod
    def with_most_room(cls, epsilon: float, delta: float) -> Self:
        """The filter at the order that suits a typical run best, to be called once, when a budget is created.

        Typical are 400 steps that take a patient in 20: the order chosen is the one at which such a run, spending the
        whole budget, needs the least noise. At δ = 1e-5 that is 17 for ε = 1, 7 for ε = 3, 5 for ε = 5 and 3 for
        ε = 10. Several runs that share the budget have more noise each, and lose less than a part in a hundred by it.
        Short runs with little noise lose most: at ε = 3, σ = 1 it holds 9 steps, where order 5 would have held 40.

        Raises:
            ConfigError: When a value is out of its range, or so small that no order leaves room for anything.
        """
        filters = [one for one in (cls(epsilon, delta, order) for order in FILTER_ORDERS) if one.limit > 0]
        if not filters:
            raise ConfigError(
                f"a budget of ε = {epsilon!r} and δ = {delta!r} holds nothing at any order", hint="raise ε, or δ"
            )
        low, high = math.log(_LEAST_NOISE), math.log(_MOST_NOISE)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = any(one.admits((), one.cost(_typical(middle))) for one in filters)
            low, high = (low, middle) if fits else (middle, high)
        return max(filters, key=lambda one: one.limit / one.cost(_typical(high)))

    @property
    def limit(self) -> float:
        """ρ(α) = ε - log(1 - 1/α) + (log δ + log α)/(α - 1): divergences may add up to this; not always positive."""
        return self.epsilon - _conversion(self.delta, self.order)

    def admits(self, spent: Iterable[float], cost: float) -> bool:
        """Whether the limit holds a further cost beside those that were admitted."""
        return math.fsum((*spent, cost)) <= self.limit

    def equivalent(self, divergence: float) -> float:
        """The ε, at this filter's δ, that a divergence at its order stands for; 0 where nothing was spent.

        A claim for what was fixed in advance only: the guarantee of a filter is its limit, not the sum it stands at.

        Edge cases:
            ε has a constant part that the first mechanism pays and later ones do not, so that figures for single
            mechanisms do not add up. The limit stands for this filter's ε.

        Args:
            divergence: Rényi divergence at `order`, at least 0.
        """
        return max(0.0, divergence + _conversion(self.delta, self.order)) if divergence > 0 else 0.0

    def cost(self, mechanism: PrivacyPlan) -> float:
        """T·ε_q(α): what all steps of a mechanism take out of the limit, at most; see `step_divergence`."""
        return mechanism.steps * step_divergence(mechanism, self.order) if mechanism.steps else 0.0


def _typical(log_noise: float) -> PrivacyPlan:
    return replace(_TYPICAL, noise_multiplier=math.exp(log_noise))


@lru_cache(maxsize=4096)
def step_divergence(mechanism: PrivacyPlan, order: int) -> float:
    """A bound on the Rényi divergence of one step of a mechanism at a whole order, the larger of both directions.

    With M_l = e^((l-1)·ε(l)) the l-th moment of the unsampled likelihood ratio,

        (α - 1)·ε_q(α) = log( 1 + Σ_(l=2..α) C(α, l)·(1 - q)^(α-l)·q^l·(M_l - 1) ),

    the binomial expansion with its 1 taken out: every term is positive, so that not even the smallest step is rounded
    to nothing. ε(l) is l/(2σ²) for gaussian noise, and for skellam noise the bound of `unsampled_divergence`.

    Guarantees:
        Never below the exact value of this expression: rounded up by a part in 10^12.

    Edge cases:
        Without noise it is infinite. Without sampling (q = 1) it is ε(α).

    Args:
        mechanism: What runs; its number of steps is not read.
        order: α, a whole number from 2.

    Source: Mironov, Talwar & Zhang 2019, section 3.3; docs/privacy-guarantees.md for skellam noise.
    """
    if mechanism.noise_multiplier == 0:
        return math.inf
    orders = np.arange(2, order + 1, dtype=np.float64)
    unsampled = [float(value) for value in _unsampled(mechanism, orders)]
    if mechanism.sampling_rate == 1:
        return unsampled[-1] * _ROUNDING
    moments = [(taken - 1) * unsampled[taken - 2] for taken in range(2, order + 1)]
    terms = [_log_term(taken, order, mechanism.sampling_rate, moment) for taken, moment in enumerate(moments, start=2)]
    return float(np.logaddexp(0.0, np.logaddexp.reduce(terms))) / (order - 1) * _ROUNDING


def _unsampled(mechanism: PrivacyPlan, orders: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if mechanism.noise == "gaussian":
        return orders / (2 * mechanism.noise_multiplier**2)
    return unsampled_divergence(orders, mechanism.clip_bound, mechanism.noise_scale**2)


def _log_term(taken: int, order: int, rate: float, log_moment: float) -> float:
    """log( C(α, l)·(1 - q)^(α-l)·q^l·(M - 1) ), without overflow for large M and without loss for M near 1."""
    weight = math.log(math.comb(order, taken)) + (order - taken) * math.log1p(-rate) + taken * math.log(rate)
    return weight + log_moment + math.log(-math.expm1(-log_moment))


def _conversion(delta: float, order: int) -> float:
    """What ε is above the divergence: log(1 - 1/α) - (log δ + log α)/(α - 1)."""
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
