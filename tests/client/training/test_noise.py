import time

import mpmath
import numpy as np
import pytest
from scipy import stats

from client.training.noise import rounded_gaussian
from common.privacy.plan import PrivacyPlan
from common.randomness import SecretSource
from tests.privacy.acceptance import noise_faults
from tests.sources import SeededSource

SCALE = 65536.0


class Fixed:
    """A source of two values: which cell of 2^-52, and where in that cell."""

    def __init__(self, coarse: float, fine: float) -> None:
        self._values = np.array([coarse, fine])

    def uniform(self, count: int) -> np.ndarray:
        assert count == 2
        return self._values


@pytest.mark.parametrize("scale", [20.0, SCALE, 2.0**40])
def test_noise_is_accepted_at_its_scale(scale: float) -> None:
    assert noise_faults(rounded_gaussian(scale, 40_000, SeededSource(1)), scale) == set()


def test_noise_from_secret_randomness_is_accepted() -> None:
    assert noise_faults(rounded_gaussian(SCALE, 40_000, SecretSource()), SCALE) == set()


@pytest.mark.parametrize("factor", [2 / 3, 0.95, 1.05, 3 / 2])
def test_noise_at_another_scale_is_rejected(factor: float) -> None:
    faults = noise_faults(rounded_gaussian(SCALE * factor, 40_000, SeededSource(2)), SCALE)
    assert "variance" in faults


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_two_thirds_and_three_halves_are_rejected_on_a_few_hundred_values(factor: float) -> None:
    assert "variance" in noise_faults(rounded_gaussian(SCALE * factor, 500, SeededSource(3)), SCALE)
    assert noise_faults(rounded_gaussian(SCALE, 500, SeededSource(3)), SCALE) == set()


def test_noise_of_the_right_variance_but_another_shape_is_rejected() -> None:
    uniform = np.rint((SeededSource(4).uniform(40_000) - 0.5) * SCALE * 12**0.5)
    assert noise_faults(uniform, SCALE) == {"normal shape"}


def test_noise_that_is_used_twice_is_rejected() -> None:
    once = rounded_gaussian(SCALE, 20_000, SeededSource(5))
    assert "fresh values" in noise_faults(np.concatenate([once, once]), SCALE)


def test_noise_that_was_not_rounded_is_rejected() -> None:
    assert noise_faults(rounded_gaussian(SCALE, 40_000, SeededSource(6)) + 0.25, SCALE) == {"whole numbers"}


@pytest.mark.parametrize("scale", [0.2, 0.7, 3.0])
def test_small_scales_have_the_probabilities_of_a_rounded_normal(scale: float) -> None:
    """Chi-square against Φ((k + 1/2) / s) - Φ((k - 1/2) / s); a right source fails with probability 1e-6."""
    samples = rounded_gaussian(scale, 100_000, SeededSource(7))
    support = np.arange(-40, 41)
    expected = 100_000 * (stats.norm.cdf((support + 0.5) / scale) - stats.norm.cdf((support - 0.5) / scale))
    seen = np.array([(samples == value).sum() for value in support])
    frequent = expected > 5
    statistic = ((seen - expected)[frequent] ** 2 / expected[frequent]).sum()
    assert statistic < stats.chi2.isf(1e-6, frequent.sum() - 1)
    assert seen[~frequent].sum() < 60


CELLS = [(2 * k + 1) * 2.0**-53 for k in (0, 1, 2**12, 2**32, 2**48, 2**50, 2**51 - 1)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("fine", [2.0**-53, 0.3, 1 - 2.0**-53])
@pytest.mark.parametrize("upper", [False, True])
def test_each_value_is_the_normal_quantile_of_its_104_bits(cell: float, fine: float, upper: bool) -> None:
    """Oracle: the quantile in 60 digits, of the exact sum of both values, from the lower tail or mirrored."""
    scale = 2.0**49
    drawn = rounded_gaussian(scale, 1, Fixed(1 - cell if upper else cell, fine))
    with mpmath.workdps(60):
        lower = mpmath.mpf(cell) + (mpmath.mpf(fine) - mpmath.mpf("0.5")) * mpmath.mpf(2) ** -52
        expected = -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * lower) * scale
    assert drawn.tolist()[0] * (-1 if upper else 1) == pytest.approx(float(expected), rel=2e-14, abs=1.0)


def test_the_tail_has_no_gaps() -> None:
    """Within the outermost of the 2^52 cells, thousands of integers are reachable; 52 bits alone would give one."""
    drawn = {int(rounded_gaussian(SCALE, 1, Fixed(2.0**-53, fine))[0]) for fine in np.linspace(1e-6, 1 - 1e-6, 5000)}
    assert len(drawn) > 4000
    assert max(drawn) < -8 * SCALE


def test_every_draw_at_the_largest_scale_is_an_exact_integer() -> None:
    outermost = rounded_gaussian(2.0**49, 1, Fixed(2.0**-53, 2.0**-53))
    assert outermost.dtype == np.int64
    assert -(2**53) < int(outermost[0]) < -11 * 2**49


def test_no_draw_lies_beyond_the_plans_reach() -> None:
    plan = PrivacyPlan("patient", 0.1, 1, 1.0, 1.0, 10.0, 1e-5, 16)
    outermost = rounded_gaussian(plan.share_scale, 1, Fixed(2.0**-53, 2.0**-53))
    assert 11 * SCALE < -int(outermost[0]) <= plan.share_reach


def test_scale_zero_gives_exact_zeros_and_draws_nothing() -> None:
    noise = rounded_gaussian(0.0, 5, None)  # type: ignore[arg-type]
    assert noise.dtype == np.int64
    assert noise.tolist() == [0] * 5


def test_no_values() -> None:
    assert rounded_gaussian(SCALE, 0, SeededSource(8)).tolist() == []


@pytest.mark.parametrize(("scale", "count"), [(-1.0, 3), (float("nan"), 3), (float("inf"), 3), (2.0**50, 3), (1.0, -1)])
def test_values_out_of_range_are_refused(scale: float, count: int) -> None:
    with pytest.raises(ValueError, match="noise needs a scale"):
        rounded_gaussian(scale, count, SeededSource(9))


def test_two_calls_differ() -> None:
    source = SecretSource()
    assert not np.array_equal(rounded_gaussian(SCALE, 20, source), rounded_gaussian(SCALE, 20, source))


def test_three_hundred_thousand_values_take_a_fraction_of_a_second() -> None:
    """20 ms on a quiet core; the bound here only keeps a loop in Python out."""
    source = SecretSource()
    start = time.perf_counter()
    rounded_gaussian(SCALE, 300_000, source)
    assert time.perf_counter() - start < 0.5
