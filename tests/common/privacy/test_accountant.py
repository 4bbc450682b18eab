"""ε against oracles written another way.

The report's figure: against Opacus' PRV accountant (other discretisation, other composition), against the closed form
of one subsampled step in both directions, and against the closed form of the Gaussian mechanism without sampling. The
Rényi figure: its divergences against integrals by mpmath in both directions.
"""

import math
from dataclasses import replace

import mpmath
import pytest
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant
from scipy import integrate
from scipy.optimize import brentq
from scipy.stats import norm

from common.privacy.accountant import RENYI_ORDERS, epsilon, epsilon_by_round, renyi_epsilon
from common.privacy.plan import PrivacyPlan


def plan(rate: float, sigma: float, steps: int, delta: float = 1e-5) -> PrivacyPlan:
    return PrivacyPlan("patient", rate, steps, 1.0, sigma, 10.0, delta, 16)


def one_step_delta(rate: float, sigma: float, eps: float) -> float:
    """δ(ε) of one step, exactly: the worse of P against Q and Q against P, for P = (1-q) N(0) + q N(1), Q = N(0).

    The likelihood ratio grows with x, so each hockey-stick divergence is a difference of normal tails at the x where
    the ratio is e^ε (or e^-ε).
    """

    def threshold(ratio: float) -> float:
        inside = (ratio - 1 + rate) / rate
        return sigma**2 * math.log(inside) + 0.5 if inside > 0 else -math.inf

    above, below = threshold(math.exp(eps)), threshold(math.exp(-eps))
    mixture = lambda tail, x: (1 - rate) * tail(x / sigma) + rate * tail((x - 1) / sigma)  # noqa: E731
    removed = mixture(norm.sf, above) - math.exp(eps) * norm.sf(above / sigma)
    added = norm.cdf(below / sigma) - math.exp(eps) * mixture(norm.cdf, below)
    return max(removed, added, 0.0)


@pytest.mark.parametrize(
    ("rate", "sigma", "steps"), [(0.05, 1.0, 400), (0.2, 1.0, 40), (0.2, 0.5, 10), (0.01, 0.8, 400), (0.5, 2.0, 20)]
)
def test_agrees_with_opacus_prv_accountant_to_a_thousandth(rate: float, sigma: float, steps: int) -> None:
    accountant = PRVAccountant()
    accountant.history = [(sigma, rate, steps)]
    # Its own estimate, between the bounds that it would report; the mesh is that of an error of 0.02.
    _, estimate, _ = accountant._get_dprv(0.02, 1e-8).compute_epsilon(1e-5, 1e-8, 0.02)
    assert epsilon(plan(rate, sigma, steps)) == pytest.approx(estimate, abs=1e-3)


@pytest.mark.parametrize("wrong", [plan(0.05, 1.01, 400), plan(0.051, 1.0, 400), plan(0.05, 1.0, 404)])
def test_a_percent_in_any_constant_would_show(wrong: PrivacyPlan) -> None:
    assert abs(epsilon(wrong) - epsilon(plan(0.05, 1.0, 400))) > 1e-2


@pytest.mark.parametrize(("rate", "sigma"), [(0.05, 1.0), (0.3, 0.5), (0.5, 3.0), (0.9, 1.5)])
def test_one_step_has_the_closed_form(rate: float, sigma: float) -> None:
    exact = brentq(lambda eps: one_step_delta(rate, sigma, eps) - 1e-5, 1e-9, 100.0)
    assert epsilon(plan(rate, sigma, 1)) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (2.0, 9), (5.0, 400)])
def test_without_sampling_it_is_the_gaussian_mechanism(sigma: float, steps: int) -> None:
    """T steps are one with σ / √T: δ = Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ) for μ = √T / σ (Balle & Wang 2018)."""
    mu = math.sqrt(steps) / sigma
    delta = lambda eps: norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu)  # noqa: E731
    exact = brentq(lambda eps: delta(eps) - 1e-5, 1e-9, 100.0)
    assert epsilon(plan(1.0, sigma, steps)) == pytest.approx(exact, abs=1e-3)


def test_figures_of_the_design() -> None:
    """q = 0.05, T = 400: σ = 1, and σ = 1/2 for four private runs whose averaged noise is the same."""
    assert epsilon(plan(0.05, 1.0, 400)) == pytest.approx(6.700, abs=1e-3)
    assert renyi_epsilon(plan(0.05, 1.0, 400)) == pytest.approx(7.425, abs=1e-3)
    assert epsilon(plan(0.05, 0.5, 400)) == pytest.approx(35.10, abs=1e-2)


def renyi_oracle(rate: float, sigma: float, order: int, removed: bool) -> float:
    """Rényi divergence of one step by integration in 30 digits: D(P‖Q) if `removed`, else D(Q‖P)."""
    with mpmath.workdps(30):
        q, s = mpmath.mpf(rate), mpmath.mpf(sigma)
        ratio = lambda x: 1 - q + q * mpmath.exp((2 * x - 1) / (2 * s**2))  # noqa: E731
        power = order if removed else 1 - order
        points = [mpmath.mpf(point) * s for point in range(-14, 15, 2)] + [order + 14 * s]
        total = mpmath.quad(lambda x: mpmath.npdf(x, 0, s) * ratio(x) ** power, sorted({*points, mpmath.mpf(order)}))
        return float(mpmath.log(total) / (order - 1))


@pytest.mark.parametrize(("rate", "sigma"), [(0.05, 1.0), (0.3, 0.7), (0.01, 2.0)])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_renyi_divergences_equal_brute_force_integrals(rate: float, sigma: float, order: int) -> None:
    accountant = RdpAccountant([order])
    (divergence,) = accountant.compose(plan(rate, sigma, 7).event()).rdp
    removed, added = (renyi_oracle(rate, sigma, order, direction) for direction in (True, False))
    assert added <= removed * (1 + 1e-12)
    assert divergence == pytest.approx(7 * removed, rel=1e-6)


def test_renyi_oracle_by_other_numbers() -> None:
    """The oracle itself: SciPy's quadrature, and the closed form α / (2σ²) where everybody takes part."""
    density = lambda x: norm.pdf(x, scale=0.7) * (0.7 + 0.3 * math.exp((2 * x - 1) / (2 * 0.49))) ** 3  # noqa: E731
    assert renyi_oracle(0.3, 0.7, 3, True) == pytest.approx(math.log(integrate.quad(density, -10, 14)[0]) / 2, rel=1e-6)
    assert renyi_oracle(1.0, 2.0, 5, True) == pytest.approx(5 / 8, rel=1e-9)


@pytest.mark.parametrize("order", [3.5, 4.5, 5.5])
def test_at_half_orders_the_library_bounds_from_above(order: float) -> None:
    """Its series takes every term as positive there."""
    (divergence,) = RdpAccountant([order]).compose(plan(0.2, 1.5, 1).event()).rdp
    density = lambda x: norm.pdf(x, scale=1.5) * (0.8 + 0.2 * math.exp((2 * x - 1) / 4.5)) ** order  # noqa: E731
    true = math.log(integrate.quad(density, -25, 40, epsabs=0, epsrel=1e-10, limit=500)[0]) / (order - 1)
    assert true <= divergence <= true * 1.02
    assert order in RENYI_ORDERS


def test_renyi_conversion_is_the_best_over_orders() -> None:
    """ε = min over α of T·D_α + log(1 - 1/α) - log(δ α) / (α - 1), with our own integrals; the best α is 17 here."""
    figure = min(
        400 * renyi_oracle(0.05, 4.0, order, True) + math.log1p(-1 / order) - math.log(1e-5 * order) / (order - 1)
        for order in (15, 16, 17, 18, 19)
    )
    assert renyi_epsilon(plan(0.05, 4.0, 400)) == pytest.approx(figure, rel=1e-6)
    assert {*range(2, 65)} <= set(RENYI_ORDERS)


@pytest.mark.parametrize(("rate", "steps"), [(0.001, 1), (0.05, 200), (1.0, 20)])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 4.0, 300.0])
def test_the_tight_figure_is_never_above_renyis(rate: float, sigma: float, steps: int) -> None:
    tight, loose = epsilon(plan(rate, sigma, steps)), renyi_epsilon(plan(rate, sigma, steps))
    assert 0 <= tight <= loose * (1 + 1e-6) + 1e-9
    assert math.isfinite(loose)


@pytest.mark.parametrize("figure", [epsilon, renyi_epsilon])
def test_edges(figure: type) -> None:
    assert figure(plan(0.1, 1.0, 0)) == 0.0
    assert figure(plan(0.1, 1.0, 10), 0) == 0.0
    assert figure(plan(0.1, 0.0, 10)) == math.inf
    assert figure(plan(0.1, 0.0, 10), 0) == 0.0
    assert figure(plan(1.0, 1.0, 10)) > figure(plan(0.999, 1.0, 10)) > 0
    with pytest.raises(ValueError, match="negative"):
        figure(plan(0.1, 1.0, 10), -1)


def test_a_part_of_the_run_costs_what_a_run_of_that_length_does() -> None:
    assert epsilon(plan(0.1, 1.0, 40), 10) == pytest.approx(epsilon(plan(0.1, 1.0, 10)), abs=1e-3)


def test_more_noise_or_a_smaller_rate_or_fewer_steps_or_a_larger_delta_cost_less() -> None:
    start = plan(0.1, 1.0, 40)
    cheaper = [replace(start, noise_multiplier=1.1), replace(start, sampling_rate=0.09), replace(start, steps=36)]
    assert all(epsilon(other) < epsilon(start) - 0.05 for other in [*cheaper, replace(start, delta=1e-4)])


@pytest.mark.parametrize(("rate", "sigma", "steps"), [(0.2, 0.01, 1_000_000), (1.0, 0.01, 100), (0.2, 0.02, 400)])
def test_hopeless_plans_still_get_a_finite_upper_bound(rate: float, sigma: float, steps: int) -> None:
    """Where the tight accountant would need gigabytes; without sampling one step costs at least 1 / (2σ²)."""
    assert 1e4 < epsilon(plan(rate, sigma, steps)) < math.inf


@pytest.mark.parametrize(
    ("steps", "sigma", "delta", "exact"), [(10**6, 300.0, 1e-10, 26.202), (10**4, 100.0, 1e-12, 7.2385)]
)
def test_a_small_delta_never_looks_cheaper_than_the_exact_gaussian(
    steps: int, sigma: float, delta: float, exact: float
) -> None:
    """Exact ε of T unsampled Gaussians in 40 digits (Balle & Wang 2018, theorem 8)."""
    assert epsilon(replace(plan(1.0, sigma, steps), delta=delta)) >= exact


@pytest.mark.parametrize(("rate", "sigma", "steps"), [(0.2, 1.0, 40), (0.01, 0.8, 200)])
def test_the_curve_starts_and_ends_exactly_and_stays_near_between(rate: float, sigma: float, steps: int) -> None:
    rounds = 10
    curve = epsilon_by_round(plan(rate, sigma, steps), rounds)
    exact = [epsilon(plan(rate, sigma, steps), (index + 1) * steps // rounds) for index in range(rounds)]
    assert (curve[0], curve[-1]) == (exact[0], exact[-1])
    assert list(curve) == sorted(curve)
    assert all(0.98 < drawn / true < 1.02 for drawn, true in zip(curve, exact, strict=True))


def test_the_curve_of_few_rounds_is_exact() -> None:
    start = plan(0.1, 1.0, 6)
    assert epsilon_by_round(start, 1) == (epsilon(start),)
    assert epsilon_by_round(start, 3) == tuple(epsilon(start, steps) for steps in (2, 4, 6))


def test_the_curve_without_noise_and_without_steps() -> None:
    assert epsilon_by_round(plan(0.1, 0.0, 4), 2) == (math.inf, math.inf)
    assert epsilon_by_round(plan(0.1, 0.0, 0), 2) == (0.0, 0.0)


@pytest.mark.parametrize("rounds", [0, -1, 3])
def test_rounds_must_divide_the_steps(rounds: int) -> None:
    with pytest.raises(ValueError, match="equal rounds"):
        epsilon_by_round(plan(0.1, 1.0, 4), rounds)


@pytest.mark.parametrize(("rate", "sigma"), [(1e-9, 1e2), (1e-6, 1e4), (1e-4, 1e9)])
def test_a_plan_of_next_to_no_loss_takes_no_memory(rate: float, sigma: float) -> None:
    # Its losses on a grid of their own size would be an array of 100 GB.
    tiny = plan(rate, sigma, 1_000_000)
    assert epsilon(tiny) == renyi_epsilon(tiny) < 0.01
