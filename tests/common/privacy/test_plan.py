import math
from dataclasses import FrozenInstanceError, fields, replace
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest

from common.errors import ConfigError
from common.plan import PrivacyConfig, PrivacyTerms
from common.privacy.plan import LARGEST_SKELLAM_SCALE, PrivacyPlan, largest_noise_multiplier

PLAN = PrivacyPlan("patient", 0.25, 12, 0.5, 1.5, 8.0, 1e-5, 10)
SHARED = replace(PLAN, noise="skellam", noise_shares=4)


def test_every_constant_comes_from_the_terms() -> None:
    terms = PrivacyTerms(
        unit="record", delta=1e-6, clip_norm=2.0, sampling_rate=0.1, divisor=7.0, grid_bits=12, noise_multiplier=0.8
    )
    plan = PrivacyPlan.from_terms(terms, 30)
    assert plan == PrivacyPlan("record", 0.1, 30, 2.0, 0.8, 7.0, 1e-6, 12)
    assert {field.name for field in fields(plan)} == {*PrivacyTerms.model_fields, "steps", "noise", "noise_shares"}
    shared = PrivacyPlan.from_terms(terms, 30, noise="skellam", noise_shares=3)
    assert shared == replace(plan, noise="skellam", noise_shares=3)


def test_a_draft_is_tried_under_a_noise_multiplier() -> None:
    config = PrivacyConfig(sampling_rate=0.1, divisor=7.0)
    assert PrivacyPlan.from_config(config, 1.25, 3) == PrivacyPlan("patient", 0.1, 3, 1.0, 1.25, 7.0, 1e-5, 16)


def test_grid_by_hand() -> None:
    assert PLAN.clip_bound == 1024
    assert PLAN.grid_step == 0.5 / 1024
    assert PLAN.noise_scale == 1536.0


@pytest.mark.parametrize("clip_norm", [0.1, 1.3, 1e-100, 1e100])
@pytest.mark.parametrize("grid_bits", [8, 24])
def test_the_bound_is_exactly_the_clip_norm(clip_norm: float, grid_bits: int) -> None:
    plan = replace(PLAN, clip_norm=clip_norm, grid_bits=grid_bits)
    assert Fraction(plan.grid_step) * plan.clip_bound == Fraction(clip_norm)


def test_the_event_describes_the_mechanism() -> None:
    """Sampling at q, noise over sensitivity (both in grid steps, so a ratio), T times."""
    event = PLAN.event()
    assert isinstance(event, dp_accounting.SelfComposedDpEvent)
    assert isinstance(event.event, dp_accounting.PoissonSampledDpEvent)
    assert isinstance(event.event.event, dp_accounting.GaussianDpEvent)
    assert event.count == PLAN.steps
    assert event.event.sampling_probability == PLAN.sampling_rate
    assert event.event.event.noise_multiplier == PLAN.noise_scale / PLAN.clip_bound


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_the_event_of_a_part_of_the_run(steps: int) -> None:
    assert PLAN.event(steps).count == steps


def test_decoding_by_hand() -> None:
    """1024 grid steps are the clip norm 0.5; over the divisor 8 that is 1/16."""
    mean = PLAN.decode(np.array([1024, -512, 0, 3], dtype=np.int64))
    assert mean.dtype == np.float64
    assert mean.tolist() == [0.0625, -0.03125, 0.0, 3 * 0.0625 / 1024]


@pytest.mark.parametrize("kind", [np.float64, np.int32, np.uint64])
def test_decoding_refuses_what_was_never_on_the_grid(kind: type) -> None:
    with pytest.raises(TypeError, match="int64"):
        PLAN.decode(np.ones(3, dtype=kind))


BAD = [
    ("unit", "site"),
    ("sampling_rate", 0.0),
    ("sampling_rate", 1.5),
    ("sampling_rate", math.nan),
    ("steps", -1),
    ("clip_norm", 0.0),
    ("clip_norm", 1e-200),
    ("clip_norm", math.inf),
    ("noise_multiplier", -0.1),
    ("noise_multiplier", math.inf),
    ("noise_multiplier", math.nan),
    ("divisor", 0.0),
    ("divisor", math.inf),
    ("delta", 0.0),
    ("delta", 1.0),
    ("grid_bits", 7),
    ("grid_bits", 25),
    ("noise", "laplace"),
    ("noise_shares", 0),
    ("noise_shares", -2),
    ("noise_shares", 2),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_constant_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        replace(PLAN, **{name: value})
    (problem,) = error.value.problems
    assert problem.where == f"privacy.{name}"
    assert problem.value == repr(value)
    assert problem.hint


def test_all_constants_out_of_range_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        PrivacyPlan("patient", 2.0, -1, 0.0, -1.0, 0.0, 0.0, 99)
    assert len(error.value.problems) == 7


def test_noise_beyond_the_floats_is_named_by_the_grid() -> None:
    with pytest.raises(ConfigError) as error:
        replace(PLAN, noise_multiplier=2.0**40)
    (problem,) = error.value.problems
    assert (problem.where, problem.value) == ("privacy.grid_bits", "10")
    assert repr(2.0**40) in problem.hint


def test_shares_by_hand() -> None:
    """Four sites, each half of the standard deviation and a quarter of the variance."""
    assert (SHARED.noise_scale, SHARED.share_scale, SHARED.share_variance) == (1536.0, 768.0, 768.0**2)
    assert (PLAN.noise_scale, PLAN.share_scale, PLAN.share_variance) == (1536.0, 1536.0, 1536.0**2)


def test_reach_of_a_share_by_hand() -> None:
    assert SHARED.share_reach == 13 * 768 + 147
    assert PLAN.share_reach == 13 * 1536 + 147
    assert replace(SHARED, noise_multiplier=0.0).share_reach == 0


def test_the_noise_that_is_there_when_nobody_is_missing() -> None:
    """Nine shares where four are accounted: 3/2 of the standard deviation, of shares that have not changed."""
    assert SHARED.noise_excess(9) == 1.5
    present = SHARED.with_shares(9)
    assert present == replace(SHARED, noise_multiplier=2.25, noise_shares=9)
    assert present.share_scale == SHARED.share_scale
    assert SHARED.with_shares(4) == SHARED


@pytest.mark.parametrize("present", [0, -1])
def test_without_a_share_there_is_no_mechanism(present: int) -> None:
    with pytest.raises(ValueError, match="at least one share"):
        SHARED.with_shares(present)


def test_gaussian_noise_has_no_shares() -> None:
    assert PLAN.with_shares(1) == PLAN
    with pytest.raises(ConfigError) as error:
        PLAN.with_shares(2)
    assert "do not add up" in error.value.problems[0].rule


def test_skellam_noise_has_no_event_of_a_gaussian_accountant() -> None:
    with pytest.raises(ValueError, match="not skellam"):
        SHARED.event()


@pytest.mark.parametrize("shares", [1, 3, 7])
def test_a_share_stays_within_its_table(shares: int) -> None:
    """The largest noise multiplier is a plan, also under all shares; a little more names the grid."""
    largest = largest_noise_multiplier(16, "skellam", shares)
    plan = replace(SHARED, grid_bits=16, noise_multiplier=largest, noise_shares=shares)
    for present in range(1, 20):
        assert plan.with_shares(present).share_scale == pytest.approx(LARGEST_SKELLAM_SCALE, rel=1e-12)
    with pytest.raises(ConfigError) as error:
        replace(plan, noise_multiplier=largest * 1.001)
    assert [problem.where for problem in error.value.problems] == ["privacy.grid_bits"]
    assert f"{largest:.4g}" in error.value.problems[0].rule
    assert replace(plan, noise_multiplier=largest * 1.999, grid_bits=15).noise == "skellam"


def test_no_noise_and_no_steps_and_everybody_are_plans() -> None:
    assert replace(PLAN, noise_multiplier=0.0, steps=0, sampling_rate=1.0).noise_scale == 0.0


def test_a_plan_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PLAN.divisor = 3.0  # type: ignore[misc]
