import math

import pytest

from common.errors import ConfigError
from common.plan import PrivacyConfig
from common.privacy import calibrate
from common.privacy.accountant import epsilon
from common.privacy.calibrate import LARGEST_NOISE, SMALLEST_NOISE, noise_for
from common.privacy.plan import PrivacyPlan


def config(rate: float, delta: float = 1e-5) -> PrivacyConfig:
    return PrivacyConfig(sampling_rate=rate, divisor=10.0, delta=delta)


def cost(sigma: float, privacy: PrivacyConfig, steps: int) -> float:
    return epsilon(PrivacyPlan.from_config(privacy, sigma, steps))


@pytest.mark.parametrize(("target", "rate", "steps"), [(3.0, 0.05, 400), (0.5, 1.0, 1), (300.0, 0.2, 40)])
def test_the_noise_is_the_smallest_of_four_decimals_that_keeps_the_target(
    target: float, rate: float, steps: int
) -> None:
    sigma = noise_for(target, config(rate), steps)
    assert sigma == round(sigma, 4)
    assert cost(sigma, config(rate), steps) <= target < cost(sigma - 1e-4, config(rate), steps)


@pytest.mark.parametrize(("target", "rate", "steps"), [(3.0, 0.1, 200), (8.0, 0.05, 400), (0.5, 1.0, 1)])
def test_skellam_noise_is_the_smallest_too(target: float, rate: float, steps: int) -> None:
    sigma = noise_for(target, config(rate), steps, noise="skellam")
    assert sigma == round(sigma, 4)
    costs = [
        epsilon(PrivacyPlan.from_config(config(rate), tried, steps, noise="skellam", noise_shares=3))
        for tried in (sigma, sigma - 1e-4)
    ]
    assert costs[0] <= target < costs[1]


def test_figure_of_the_design() -> None:
    """q = 0.1, T = 200, ε = 3 needs σ of about 2.3, where the general amplification bound asks for 10.8."""
    assert noise_for(3.0, config(0.1), 200, noise="skellam") == pytest.approx(2.335, abs=1e-3)


def test_the_grid_bounds_skellam_noise_and_says_so() -> None:
    """At 20 bits one share holds σ = 1, four hold σ = 2; 16 bits hold all that is needed."""
    fine = config(0.05).model_copy(update={"grid_bits": 20})
    with pytest.raises(ConfigError) as error:
        noise_for(5.0, fine, 400, noise="skellam")
    assert "up to 1 reaches" in error.value.problems[0].rule
    assert "grid_bits" in error.value.problems[0].hint
    fits = noise_for(5.0, fine, 400, noise="skellam", noise_shares=4)
    assert 1 < fits == noise_for(5.0, config(0.05), 400, noise="skellam")


def test_round_trip() -> None:
    """The ε of a noise multiplier asks for that noise multiplier; a hair less ε asks for the next."""
    privacy = config(0.1, delta=1e-7)
    target = cost(1.2345, privacy, 20)
    assert noise_for(target, privacy, 20) == 1.2345
    assert noise_for(target * (1 - 1e-9), privacy, 20) == 1.2346


def test_a_target_that_needs_no_noise_gets_the_smallest_anyway() -> None:
    assert noise_for(1e9, config(0.1), 10) == SMALLEST_NOISE
    assert noise_for(1.0, config(0.1), 0) == SMALLEST_NOISE


@pytest.mark.parametrize("target", [1e-9, 0.0, -1.0, math.nan, math.inf])
def test_an_impossible_target_is_one_sentence_with_a_hint(target: float) -> None:
    with pytest.raises(ConfigError) as error:
        noise_for(target, config(1.0), 1000)
    (problem,) = error.value.problems
    assert (problem.where, problem.value) == ("privacy.epsilon", repr(target))
    assert f"up to {LARGEST_NOISE:g}" in problem.rule
    assert "sampling_rate" in problem.hint
    assert error.value.hint == ""  # it is told with the problem


@pytest.mark.parametrize("missed_by", [-2, 3])
def test_the_promise_holds_also_where_the_root_finder_misses(missed_by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    privacy = config(1.0)
    right = noise_for(3.0, privacy, 2)
    monkeypatch.setattr(calibrate, "_near_root", lambda *_: round(right * 10_000) + missed_by)
    assert noise_for(3.0, privacy, 2) == right
