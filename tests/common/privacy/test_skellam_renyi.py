"""The Skellam bound against brute force: sums over whole numbers, in log space, in both directions.

The oracle's probabilities come from the continued fraction of I_(k+1) / I_k, which the code under test never uses.
"""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from scipy import stats
from scipy.special import logsumexp

from common.privacy.accountant import epsilon, epsilon_by_round, renyi_epsilon
from common.privacy.plan import PrivacyPlan
from common.privacy.skellam_renyi import SKELLAM_ORDERS, sampled_divergence, step_divergences, unsampled_divergence


def plan(rate: float, sigma: float, steps: int, grid_bits: int = 16) -> PrivacyPlan:
    return PrivacyPlan("patient", rate, steps, 1.0, sigma, 10.0, 1e-5, grid_bits, "skellam", 2)


def gaussian(skellam: PrivacyPlan) -> PrivacyPlan:
    return replace(skellam, noise="gaussian", noise_shares=1)


@lru_cache(maxsize=8)
def log_masses(variance: float, reach: int) -> np.ndarray:
    """log e^-v I_k(v) for k = -reach to reach, by the ratios I_k / I_(k-1) = 1 / (2k / v + I_(k+1) / I_k)."""
    ratios = [0.0]
    for k in range(reach + 200, 0, -1):
        ratios.append(1 / (2 * k / variance + ratios[-1]))
    right = np.concatenate([[0.0], np.cumsum(np.log(ratios[:0:-1]))])[: reach + 1]
    both = np.concatenate([right[:0:-1], right])
    return both - logsumexp(both)


def brute_force(order: float, rate: float, variance: float, shift: tuple[int, ...], removed: bool) -> float:
    """D(mixture‖base) if `removed`, else D(base‖mixture), for noise in as many dimensions as the shift has."""
    width = math.ceil(max(order, 2) * max(shift) + 14 * math.sqrt(variance) + 40)
    base, moved = np.zeros(1), np.zeros(1)
    for part in shift:
        masses = log_masses(variance, 2 * width)
        here = masses[width - 10 : -width + 10]
        there = masses[width - 10 - part : len(masses) - width + 10 - part]
        base, moved = np.add.outer(base, here).ravel(), np.add.outer(moved, there).ravel()
    mixture = np.logaddexp(math.log1p(-rate) + base, math.log(rate) + moved) if rate < 1 else moved
    power = order if removed else 1 - order
    return float(logsumexp(base + power * (mixture - base)) / (order - 1))


def bound(order: float, rate: float, variance: float, shift: tuple[int, ...]) -> float:
    """The bound under test for a vector of just this L2 norm."""
    norm = math.sqrt(sum(part**2 for part in shift))
    whole = np.arange(math.ceil(order) + 1, dtype=np.float64)
    return sampled_divergence(order, rate, unsampled_divergence(whole, norm, variance))


def test_the_oracle_is_the_skellam_law_and_its_divergence_the_right_one() -> None:
    """SciPy's own probabilities; and log Σ P² / Q by hand, term by term."""
    support = np.arange(-30, 31)
    assert log_masses(7.5, 30) == pytest.approx(stats.skellam.logpmf(support, 3.75, 3.75), abs=1e-9)
    base, moved = stats.skellam.pmf(np.arange(-40, 41), 2.0, 2.0), stats.skellam.pmf(np.arange(-41, 40), 2.0, 2.0)
    by_hand = math.log(((0.7 * base + 0.3 * moved) ** 2 / base).sum())
    assert brute_force(2, 0.3, 4.0, (1,), True) == pytest.approx(by_hand, rel=1e-6)
    by_hand = math.log((base**2 / (0.7 * base + 0.3 * moved)).sum())
    assert brute_force(2, 0.3, 4.0, (1,), False) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(("variance", "by_hand"), [(8.0, 12 / 16 + 44 / 256), (0.5, 12 + 12)])
def test_the_published_bound_by_hand(variance: float, by_hand: float) -> None:
    """α = 3, Δ₂ = 2, Δ₁ ≤ 4: 3·4 / 2v, and the smaller of (5·4 + 6·4) / 4v² and 3·4 / 2v."""
    (found,) = unsampled_divergence(np.array([3.0]), 2, variance)
    assert found == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("variance", [0.05, 0.5, 2.0, 10.0, 300.0])
@pytest.mark.parametrize("shift", [(1,), (3,), (12,)])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_unsampled_noise_stays_within_the_published_bound(order: int, shift: tuple[int], variance: float) -> None:
    true = brute_force(order, 1.0, variance, shift, True)
    assert true <= bound(order, 1.0, variance, shift)
    assert true == pytest.approx(brute_force(order, 1.0, variance, shift, False), rel=1e-9)
    if variance == 300.0 and shift != (12,):
        assert true > 0.97 * bound(order, 1.0, variance, shift)


SAMPLED = [(rate, variance, shift) for rate in (0.01, 0.3, 0.5, 0.9) for variance, shift in [(1.0, 1), (50.0, 5)]]


@pytest.mark.parametrize(("rate", "variance", "shift"), SAMPLED)
@pytest.mark.parametrize("order", [1.1, 1.5, 2, 2.5, 3, 3.7, 8, 20])
def test_both_directions_of_the_subsampled_mechanism_stay_within_the_bound(
    order: float, rate: float, variance: float, shift: int
) -> None:
    removed, added = (brute_force(order, rate, variance, (shift,), direction) for direction in (True, False))
    assert added <= removed * (1 + 1e-9)
    assert 0 < removed <= bound(order, rate, variance, (shift,))


@pytest.mark.parametrize("shift", [(1, 1), (2, -1), (3, 0), (1, 1, 1)])
@pytest.mark.parametrize("order", [1.5, 2, 5])
def test_both_directions_stay_within_the_bound_in_several_dimensions(order: float, shift: tuple[int, ...]) -> None:
    removed, added = (brute_force(order, 0.2, 3.0, shift, direction) for direction in (True, False))
    assert added <= removed * (1 + 1e-9)
    assert 0 < removed <= bound(order, 0.2, 3.0, shift)


@pytest.mark.parametrize(("rate", "sigma"), [(0.05, 1.0), (0.3, 0.7), (0.01, 2.0)])
@pytest.mark.parametrize("order", [2, 4, 9])
def test_a_plan_of_few_grid_bits_by_brute_force(order: int, rate: float, sigma: float) -> None:
    """One value moved by the whole clip bound; within 2 % of the bound, and above that of 3 % more noise."""
    small = plan(rate, sigma, 1, grid_bits=8)
    true = brute_force(order, rate, small.noise_scale**2, (small.clip_bound,), True)
    (claimed,) = step_divergences(small, (order,))
    assert true <= claimed <= 1.02 * true
    (optimistic,) = step_divergences(replace(small, noise_multiplier=1.03 * sigma), (order,))
    assert true > optimistic


@pytest.mark.parametrize(("rate", "sigma"), [(0.05, 1.0), (0.2, 0.5), (0.01, 4.0), (1.0, 2.0)])
def test_at_large_scale_it_is_the_sampled_gaussian(rate: float, sigma: float) -> None:
    orders = tuple(order for order in SKELLAM_ORDERS if order == int(order))
    skellam = plan(rate, sigma, 1)
    theirs = RdpAccountant(orders).compose(gaussian(skellam).event()).rdp
    assert step_divergences(skellam, orders) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("order", [1.1, 1.9, 2.5, 3.5, 6.1])
@pytest.mark.parametrize(("rate", "slack"), [(0.01, 1.04), (0.2, 1.7)])
def test_between_whole_orders_it_is_close_for_small_rates(order: float, rate: float, slack: float) -> None:
    true = brute_force(order, rate, 1e4, (100,), True)
    assert true <= bound(order, rate, 1e4, (100,)) <= slack * true


def test_between_whole_orders_nothing_is_said_without_sampling() -> None:
    half, whole = step_divergences(plan(1.0, 1.0, 1), (2.5, 3))
    assert half == math.inf
    assert whole == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize(("rate", "sigma", "steps"), [(0.05, 1.0, 400), (0.05, 4.0, 400), (0.2, 0.5, 10)])
def test_conversion_is_that_of_dp_accounting(rate: float, sigma: float, steps: int) -> None:
    skellam = plan(rate, sigma, steps)
    theirs, _ = compute_epsilon(SKELLAM_ORDERS, [steps * spent for spent in step_divergences(skellam)], 1e-5)
    assert epsilon(skellam) == pytest.approx(theirs, rel=1e-9)
    assert renyi_epsilon(skellam) == epsilon(skellam)


def test_figures_of_the_design() -> None:
    """q = 0.05, T = 400, σ = 1: 7.44 here and 7.43 for the Gaussian; whole orders alone would say 7.65."""
    skellam = plan(0.05, 1.0, 400)
    assert epsilon(skellam) == pytest.approx(7.436, abs=1e-3)
    assert renyi_epsilon(gaussian(skellam)) == pytest.approx(7.425, abs=1e-3)
    spent = 400 * np.array(step_divergences(skellam, (3, 4, 5)))
    assert compute_epsilon([3, 4, 5], spent, 1e-5)[0] == pytest.approx(7.654, abs=1e-3)


def test_all_shares_present_cost_less_than_the_accounted_ones() -> None:
    accounted = plan(0.05, 1.0, 400)
    assert epsilon(accounted.with_shares(4)) == pytest.approx(4.037, abs=1e-3)
    assert epsilon(accounted.with_shares(4)) == epsilon(replace(accounted, noise_multiplier=math.sqrt(2)))


def test_more_noise_or_a_smaller_rate_or_fewer_steps_or_a_finer_grid_cost_less() -> None:
    start = plan(0.1, 1.0, 40, grid_bits=8)
    cheaper = [replace(start, noise_multiplier=1.1), replace(start, sampling_rate=0.09), replace(start, steps=36)]
    assert all(epsilon(other) < epsilon(start) - 0.05 for other in [*cheaper, replace(start, delta=1e-4)])
    assert epsilon(replace(start, grid_bits=12)) < epsilon(start)
    curve = epsilon_by_round(start, 8)
    assert list(curve) == sorted(curve)
    assert curve[-1] == epsilon(start)


@pytest.mark.parametrize("figure", [epsilon, renyi_epsilon])
def test_edges(figure: type) -> None:
    assert figure(plan(0.1, 1.0, 0)) == 0.0
    assert figure(plan(0.1, 0.0, 10)) == math.inf
    assert figure(plan(1.0, 1.0, 10)) > figure(plan(0.999, 1.0, 10)) > 0
    assert 1e4 < figure(plan(1.0, 0.01, 1_000_000, grid_bits=8)) < math.inf
    assert figure(replace(plan(1e-6, 10.0, 1), delta=0.5)) == 0.0
    with pytest.raises(ValueError, match="negative"):
        figure(plan(0.1, 1.0, 10), -1)


def test_a_tiny_rate_keeps_its_digits() -> None:
    """To second order in q the divergence of order 2 is q²·(e^(1/σ²) - 1)."""
    (spent,) = step_divergences(plan(1e-6, 1.0, 1), (2,))
    assert spent == pytest.approx(1e-12 * math.expm1(1.0), rel=1e-3)
