import math
import time

import mpmath
import numpy as np
import pytest
from scipy import stats

from client.training.skellam import log_probability, skellam
from common.privacy.plan import LARGEST_SKELLAM_SCALE, PrivacyPlan
from common.randomness import SecretSource
from tests.privacy.acceptance import FALSE_POSITIVE, noise_faults
from tests.sources import SeededSource

SCALE = 65536.0
VARIANCES = [0.05, 0.3, 1.0, 30.0, 499.0, 501.0, 4000.0, 1e6, 4.3e9, 1e12]


class Fixed:
    """A source whose values put one draw at a given point of the lower tail, or mirrored in the upper."""

    def __init__(self, lower: mpmath.mpf, upper: bool) -> None:
        cell = int(mpmath.floor(lower * 2**52))
        coarse = (cell + 0.5) * 2.0**-52
        self._values = np.array([1 - coarse if upper else coarse, float(lower * 2**52 - cell)])

    def uniform(self, count: int) -> np.ndarray:
        assert count == 2
        return self._values


def saddle_log_probability(value: int, variance: float) -> float:
    """log e^-v I_k(v) in 40 digits: the integral over a circle through the saddle point, by the trapezoid rule.

    I_k(v) = (1/2π) ∫ exp(v cos φ - i k φ) dφ, shifted by -i asinh(k/v): nothing oscillates, and the rule converges
    exponentially.
    """
    with mpmath.workdps(40):
        k, v = mpmath.mpf(value), mpmath.mpf(variance)
        s, shift = mpmath.sqrt(k**2 + v**2), mpmath.asinh(k / v)
        step = min(mpmath.mpf("0.3") / mpmath.sqrt(s), 2 * mpmath.pi / 200)
        points = [j * step for j in range(-100, 100)]
        total = mpmath.fsum(mpmath.exp(s * (mpmath.cos(x) - 1)) * mpmath.cos(k * (mpmath.sin(x) - x)) for x in points)
        return float(mpmath.log(total * step / (2 * mpmath.pi)) + s - v - k * shift)


def masses(variance: float, reach: int = 120) -> np.ndarray:
    """Probabilities of -reach to reach, by convolving two Poisson laws."""
    size = 2 * reach + math.ceil(variance)
    poisson = stats.poisson.pmf(np.arange(size), variance / 2)
    return np.convolve(poisson, poisson[::-1])[size - 1 - reach : size + reach]


def fits(samples: np.ndarray, variance: float) -> bool:
    """Chi-square against the Skellam law of that variance; rejects a right source with probability 1e-6."""
    expected = masses(variance) * len(samples)
    frequent = expected >= 10
    seen = np.array([(samples == value).sum() for value in np.arange(-120, 121)])
    cells = np.append(seen[frequent], len(samples) - seen[frequent].sum())
    wanted = np.append(expected[frequent], max(len(samples) - expected[frequent].sum(), 1e-9))
    keep = wanted > 1
    statistic = ((cells - wanted)[keep] ** 2 / wanted[keep]).sum()
    return bool(statistic < stats.chi2.isf(FALSE_POSITIVE, keep.sum() - 1))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("depth", [0.0, 0.01, 0.7, 3.0, 7.0, 11.9])
def test_probabilities_are_those_of_bessel_functions(variance: float, depth: float) -> None:
    value = round(depth * variance**0.5)
    (found,) = log_probability(np.array([float(value)]), variance)
    assert found == pytest.approx(saddle_log_probability(value, variance), abs=6e-14)
    (mirrored,) = log_probability(np.array([-float(value)]), variance)
    assert mirrored == found


@pytest.mark.parametrize(("value", "variance"), [(0, 0.05), (14, 0.05), (3, 7.5), (60, 30.0), (270, 500.0)])
def test_the_oracle_is_mpmaths_bessel_function(value: int, variance: float) -> None:
    with mpmath.workdps(40):
        exact = float(mpmath.log(mpmath.besseli(value, variance)) - mpmath.mpf(variance))
    assert saddle_log_probability(value, variance) == pytest.approx(exact, rel=1e-15)


@pytest.mark.parametrize("variance", [0.05, 1.0, 30.0, 2000.0])
@pytest.mark.parametrize("upper", [False, True])
def test_each_draw_inverts_the_distribution_at_its_104_bits(variance: float, upper: bool) -> None:
    """Just inside P(X ≥ m) it is m, just outside m - 1: for m down to a tail of 2^-103."""
    with mpmath.workdps(40):
        exact = [mpmath.besseli(k, variance) * mpmath.exp(-mpmath.mpf(variance)) for k in range(700)]
        tails = [mpmath.fsum(exact[m:]) for m in range(1, 600) if mpmath.fsum(exact[m:]) > mpmath.mpf(2) ** -103]
        points = [(m, tail) for m, tail in enumerate(tails, start=1)]
        for m, tail in points[:: max(1, len(points) // 25)]:
            margin = tail * mpmath.mpf("1e-12") + mpmath.mpf(2) ** -105
            inside = skellam(variance, 1, Fixed(tail - margin, upper)).tolist()
            outside = skellam(variance, 1, Fixed(tail + margin, upper)).tolist()
            assert (inside, outside) == (([m], [m - 1]) if upper else ([-m], [1 - m]))


@pytest.mark.parametrize("variance", [0.05, 0.3, 2.0, 30.0, 300.0])
def test_the_right_variance_is_accepted_and_two_thirds_and_three_halves_are_not(variance: float) -> None:
    samples = skellam(variance, 100_000, SeededSource(1))
    assert fits(samples, variance)
    assert not any(fits(samples, variance * factor) for factor in (2 / 3, 0.9, 1.1, 3 / 2))


@pytest.mark.parametrize("scale", [40.0, SCALE])
@pytest.mark.parametrize("source", [SeededSource(2), SecretSource()])
def test_large_scales_are_accepted_at_their_own_variance_only(scale: float, source: object) -> None:
    samples = skellam(scale**2, 40_000, source)  # type: ignore[arg-type]
    assert noise_faults(samples, scale) == set()
    for factor in (2 / 3, 0.9, 1.1, 3 / 2):
        assert "variance" in noise_faults(samples, scale * factor**0.5)


SITES, DROPOUTS, COLLUDERS = 6, 2, 1


@pytest.mark.parametrize("missing", range(DROPOUTS + 1))
def test_the_sum_of_honest_shares_is_skellam_with_the_stated_variance(missing: int) -> None:
    """n - c - (0..d) honest survivors: variance σ²C²·m / (n-d-c), never less than σ²C²; the law, not just moments."""
    accounted, present = SITES - DROPOUTS - COLLUDERS, SITES - COLLUDERS - missing
    total = sum(skellam(12.0 / accounted, 100_000, SeededSource(10 + site)) for site in range(present))
    variance = 12.0 * present / accounted
    assert variance >= 12.0
    assert fits(total, variance)
    assert not any(fits(total, variance * factor) for factor in (2 / 3, 0.9, 1.1, 3 / 2))


@pytest.mark.parametrize("missing", range(DROPOUTS + 1))
def test_a_plans_shares_add_up_to_its_noise(missing: int) -> None:
    shares = SITES - DROPOUTS - COLLUDERS
    plan = PrivacyPlan("patient", 0.1, 1, 1.0, 1.0, 10.0, 1e-5, 16, "skellam", shares)
    present = SITES - COLLUDERS - missing
    total = sum(skellam(plan.share_variance, 40_000, SeededSource(20 + site)) for site in range(present))
    scale = plan.with_shares(present).noise_scale
    assert scale >= plan.noise_scale
    assert noise_faults(total, scale) == set()
    assert "variance" in noise_faults(total, scale * (2 / 3) ** 0.5)
    assert "variance" in noise_faults(total, scale * (3 / 2) ** 0.5)


def test_noise_that_is_used_twice_is_rejected() -> None:
    once = skellam(SCALE**2, 20_000, SeededSource(5))
    assert "fresh values" in noise_faults(np.concatenate([once, once]), SCALE)


def test_the_tail_has_no_gaps() -> None:
    """Within the outermost of the 2^52 cells, thousands of integers are reachable; 52 bits alone would give one."""
    cells = [mpmath.mpf(2) ** -52 * mpmath.mpf(fine) for fine in np.linspace(1e-6, 1 - 1e-6, 5000)]
    drawn = {int(skellam(SCALE**2, 1, Fixed(lower, False))[0]) for lower in cells}
    assert len(drawn) > 4000
    assert max(drawn) < -8 * SCALE


@pytest.mark.parametrize(("variance", "least"), [(SCALE**2, 11.7 * SCALE), (1.0, 24), (0.05, 13)])
def test_the_outermost_draw_lies_where_the_tail_is_2_to_minus_105(variance: float, least: float) -> None:
    outermost = int(skellam(variance, 1, Fixed(mpmath.mpf(2) ** -105, True))[0])
    assert least <= outermost <= 1.06 * least
    assert outermost.bit_length() < 54


@pytest.mark.parametrize("sigma", [0.01, 0.02, 0.05, 0.3, 1.0, 20.0, 250.0])
@pytest.mark.parametrize("shares", [1, 60])
def test_no_draw_lies_beyond_the_plans_reach(sigma: float, shares: int) -> None:
    plan = PrivacyPlan("patient", 0.1, 1, 1.0, sigma, 10.0, 1e-5, 8, "skellam", shares)
    outermost = skellam(plan.share_variance, 1, Fixed(mpmath.mpf(2) ** -105, True)).tolist()
    assert outermost[0] <= plan.share_reach <= 2 * outermost[0] + 147


def test_a_variance_whose_every_draw_is_zero() -> None:
    assert skellam(1e-300, 1000, SeededSource(6)).tolist() == [0] * 1000


def test_variance_zero_gives_exact_zeros_and_draws_nothing() -> None:
    noise = skellam(0.0, 5, None)  # type: ignore[arg-type]
    assert noise.dtype == np.int64
    assert noise.tolist() == [0] * 5


def test_no_values() -> None:
    noise = skellam(SCALE**2, 0, SeededSource(8))
    assert noise.dtype == np.int64
    assert noise.tolist() == []


@pytest.mark.parametrize(
    ("variance", "count"), [(-1.0, 3), (float("nan"), 3), (float("inf"), 3), (2.0**41, 3), (1.0, -1)]
)
def test_values_out_of_range_are_refused(variance: float, count: int) -> None:
    with pytest.raises(ValueError, match="noise needs a variance"):
        skellam(variance, count, SeededSource(9))


def test_two_calls_differ() -> None:
    source = SecretSource()
    assert not np.array_equal(skellam(SCALE**2, 20, source), skellam(SCALE**2, 20, source))


@pytest.mark.slow
def test_the_largest_share_that_a_plan_allows_can_be_drawn() -> None:
    """A table of 100 MiB; the plan's rounding of √3 must not push it over the limit."""
    plan = PrivacyPlan("patient", 0.1, 1, 1.0, 16.0, 10.0, 1e-5, 16, "skellam", 1).with_shares(3)
    samples = skellam(plan.share_variance, 40_000, SeededSource(11))
    assert noise_faults(samples, LARGEST_SKELLAM_SCALE) == set()


def test_three_hundred_thousand_values_take_a_fraction_of_a_second() -> None:
    """15 ms on a quiet core once the table stands; the bound here only keeps a loop in Python out."""
    source = SecretSource()
    skellam(SCALE**2, 1, source)
    start = time.perf_counter()
    skellam(SCALE**2, 300_000, source)
    assert time.perf_counter() - start < 0.5
