"""The filter against three oracles that share no code with it: an integral in 30 digits, dp_accounting, and PLD."""

import math
from dataclasses import replace

import mpmath
import pytest
from dp_accounting import NeighboringRelation
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.privacy.plan import PrivacyPlan
from common.privacy.renyi_filter import FILTER_ORDERS, RenyiFilter, step_divergence
from common.privacy.skellam_renyi import step_divergences

DELTA = 1e-5


def gaussian(rate: float, sigma: float, steps: int = 1) -> PrivacyPlan:
    return PrivacyPlan("patient", rate, steps, 1.0, sigma, 10.0, DELTA, 16)


def skellam(rate: float, sigma: float, steps: int = 1, grid_bits: int = 16) -> PrivacyPlan:
    return PrivacyPlan("patient", rate, steps, 1.0, sigma, 10.0, DELTA, grid_bits, "skellam", 2)


def by_integral(order: int, rate: float, sigma: float) -> float:
    """D(mixture‖base) of one sampled Gaussian step, as the integral that defines it."""
    with mpmath.workdps(30):

        def density(x):
            ratio = 1 - rate + rate * mpmath.exp((2 * x - 1) / (2 * mpmath.mpf(sigma) ** 2))
            return mpmath.npdf(x, 0, sigma) * ratio**order

        ends = [-12 * sigma, 0, 1, order, order + 12 * sigma]
        return float(mpmath.log(mpmath.quad(density, ends)) / (order - 1))


# --- one step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
@pytest.mark.parametrize("rate", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("order", [2, 5, 17])
def test_a_gaussian_step_is_the_integral(order, rate, sigma):
    assert step_divergence(gaussian(rate, sigma), order) == pytest.approx(by_integral(order, rate, sigma), rel=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("order", [2, 7, 64, 1024])
def test_a_gaussian_run_costs_what_dp_accounting_says(order, rate):
    run = gaussian(rate, 1.3, steps=70)
    accountant = RdpAccountant([order], NeighboringRelation.ADD_OR_REMOVE_ONE).compose(run.event())
    limits = RenyiFilter(1.0, 1e-300, order)
    # A tiny δ keeps the library's figure above its floor of 0.
    assert limits.equivalent(limits.cost(run)) == pytest.approx(accountant.get_epsilon(1e-300), rel=1e-9)


@pytest.mark.parametrize("grid_bits", [8, 16])
@pytest.mark.parametrize("rate", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("order", [2, 7, 64])
def test_a_skellam_step_is_the_reports_bound(order, rate, grid_bits):
    step = skellam(rate, 1.1, grid_bits=grid_bits)
    assert step_divergence(step, order) == pytest.approx(step_divergences(step, (order,))[0], rel=1e-9)


def test_skellam_costs_more_than_gaussian_and_hardly_more_on_a_fine_grid():
    coarse_cost, fine_cost = (step_divergence(skellam(0.05, 1.0, 1, bits), 7) for bits in (8, 20))
    limit = step_divergence(gaussian(0.05, 1.0), 7)
    assert limit < fine_cost < coarse_cost
    assert fine_cost == pytest.approx(limit, rel=1e-9)


def test_the_smallest_step_is_not_rounded_to_nothing():
    """(1 - q + q·M) - 1 loses all its digits here; q²·α/(2σ²)·2/2 is what the series begins with."""
    cost = step_divergence(gaussian(1e-7, 100.0), 5)
    assert cost == pytest.approx(5 / 2 * 1e-14 * math.expm1(1e-4), rel=1e-6)


def test_a_cost_is_rounded_up():
    assert step_divergence(gaussian(1.0, 1.0), 4) > 2.0
    assert step_divergence(gaussian(1.0, 1.0), 4) < 2.0 * (1 + 1e-11)


def test_without_noise_nothing_is_ever_admitted():
    limits = RenyiFilter(50.0, DELTA, 2)
    assert limits.cost(gaussian(0.1, 0.0, 1)) == math.inf
    assert not limits.admits((), math.inf)


def test_no_steps_cost_nothing():
    assert RenyiFilter(3.0, DELTA, 7).cost(gaussian(0.1, 0.0, 0)) == 0.0
    assert RenyiFilter(3.0, DELTA, 7).equivalent(0.0) == 0.0


# --- the limit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "delta", "order"), [(3.0, 1e-5, 7), (1.0, 1e-6, 22), (10.0, 1e-5, 3)])
def test_the_limit_is_what_converts_to_epsilon(epsilon, delta, order):
    with mpmath.workdps(30):
        alpha = mpmath.mpf(order)
        limit = epsilon - mpmath.log(1 - 1 / alpha) + (mpmath.log(delta) + mpmath.log(alpha)) / (alpha - 1)
    limits = RenyiFilter(epsilon, delta, order)
    assert limits.limit == pytest.approx(float(limit), rel=1e-12)
    assert limits.equivalent(limits.limit) == pytest.approx(epsilon, rel=1e-12)


RUNS = st.tuples(st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([1.0, 1.5, 3.0]), st.integers(1, 200))


@given(runs=st.lists(RUNS, max_size=8))
@settings(max_examples=20, deadline=None)
def test_whatever_is_admitted_stays_within_the_budget_by_another_accountant(runs):
    """Composed by dp_accounting in one go, at this order and at the best of many."""
    limits = RenyiFilter.with_most_room(3.0, DELTA)
    here = RdpAccountant([limits.order], NeighboringRelation.ADD_OR_REMOVE_ONE)
    tight = RdpAccountant(FILTER_ORDERS[:40], NeighboringRelation.ADD_OR_REMOVE_ONE)
    admitted = []
    for rate, sigma, steps in runs:
        run = gaussian(rate, sigma, steps)
        fits = limits.admits(admitted, limits.cost(run))
        alone = RdpAccountant([limits.order], NeighboringRelation.ADD_OR_REMOVE_ONE)
        if fits:
            admitted.append(limits.cost(run))
            here.compose(run.event())
            tight.compose(run.event())
        elif not admitted:
            assert alone.compose(run.event()).get_epsilon(DELTA) > 3.0
    assert here.get_epsilon(DELTA) <= 3.0
    assert tight.get_epsilon(DELTA) <= here.get_epsilon(DELTA)
    if admitted:
        assert limits.equivalent(math.fsum(admitted)) == pytest.approx(here.get_epsilon(DELTA), rel=1e-6)


def test_a_full_budget_is_within_epsilon_by_loss_distributions():
    limits = RenyiFilter.with_most_room(3.0, DELTA)
    step = gaussian(0.05, 2.0)
    steps = int(limits.limit / limits.cost(step))
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3).compose(step.event(steps))
    assert 2.0 < accountant.get_epsilon(DELTA) < 3.0


def test_the_last_that_fits_is_admitted_and_one_step_more_is_not():
    limits = RenyiFilter(3.0, DELTA, 7)
    half = limits.limit / 2
    assert limits.admits((half,), half)
    assert not limits.admits((half,), math.nextafter(half, 1) * (1 + 1e-15))
    assert limits.admits((0.1,) * 10, limits.limit - 1.0)  # ten tenths are 1 here, not a little less
    assert not limits.admits((0.1,) * 10, math.nextafter(limits.limit - 1.0, 9) * (1 + 1e-15))


def test_an_order_whose_limit_is_not_positive_admits_nothing():
    limits = RenyiFilter(1.0, DELTA, 2)
    assert limits.limit < 0
    assert not limits.admits((), 0.0)


# --- the order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "order"), [(0.5, 31), (1.0, 17), (3.0, 7), (5.0, 5), (10.0, 3), (30.0, 2)])
def test_the_order_leaves_a_typical_budget_the_most_room(epsilon, order):
    assert RenyiFilter.with_most_room(epsilon, DELTA).order == order


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_no_other_order_holds_as_many_typical_steps(epsilon):
    """The noise that 400 steps need, found by going up a ladder of noises instead of halving."""
    filters = [RenyiFilter(epsilon, DELTA, order) for order in FILTER_ORDERS[:40]]

    def steps_held(limits: RenyiFilter, sigma: float) -> float:
        return limits.limit / limits.cost(gaussian(0.05, sigma))

    ladder = [1.01**k for k in range(-100, 400)]
    sigma = next(one for one in ladder if max(steps_held(limits, one) for limits in filters) >= 400)
    best = max(filters, key=lambda limits: steps_held(limits, sigma))
    chosen = RenyiFilter.with_most_room(epsilon, DELTA)
    assert steps_held(chosen, sigma) >= 0.999 * steps_held(best, sigma)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"epsilon": 0.0}, "ε of a budget"),
        ({"epsilon": math.inf}, "ε of a budget"),
        ({"epsilon": math.nan}, "ε of a budget"),
        ({"delta": 0.0}, "δ of a budget"),
        ({"delta": 1.0}, "δ of a budget"),
        ({"order": 1}, "the order of a budget"),
        ({"order": 1025}, "the order of a budget"),
        ({"order": 7.0}, "the order of a budget"),
    ],
)
def test_constants_out_of_range_are_refused(change, rule):
    with pytest.raises(ConfigError, match=rule):
        replace(RenyiFilter(3.0, DELTA, 7), **change)


def test_a_budget_that_holds_nothing_at_any_order_is_refused():
    with pytest.raises(ConfigError, match="holds nothing at any order"):
        RenyiFilter.with_most_room(1e-3, DELTA)
    with pytest.raises(ConfigError, match="ε of a budget"):
        RenyiFilter.with_most_room(-1.0, DELTA)
