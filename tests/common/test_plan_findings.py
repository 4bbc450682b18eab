import math

import pytest

from common.plan_findings import check_masks, check_privacy, size_text, time_text
from common.privacy.accountant import epsilon
from common.privacy.mechanism import mechanism_of
from tests.plans import make_plan

MASKED = {"masked": True, "tolerated_dropouts": 0}


def masked(**terms):
    roster = {name: letter * 64 for name, letter in zip(("north", "south", "east", "west"), "abcd", strict=True)}
    terms = {**MASKED, **terms}
    return make_plan(mode="distributed", local_steps=1, sites=4, roster=roster, secure_aggregation=terms)


def test_the_cost_is_the_accountants() -> None:
    plan = make_plan(privacy={"noise_multiplier": 4.0})
    finding = check_privacy(plan)
    assert finding.level == "pass"
    assert f"ε = {epsilon(mechanism_of(plan)):.2f} at δ = 1e-05 for each patient" in finding.sentence


def test_much_is_a_warning_and_no_noise_is_a_failure() -> None:
    assert check_privacy(make_plan(privacy={"noise_multiplier": 0.3})).level == "warn"
    assert check_privacy(make_plan(privacy={"noise_multiplier": 0.0})).level == "fail"


def test_masks_say_how_many_stand_behind_a_sum_and_what_the_noise_is_worth() -> None:
    finding = check_masks(masked())
    assert finding.level == "pass"
    assert "at least 4 of 4 hospitals" in finding.sentence
    assert f"{math.sqrt(4 / 3):.2f} times" in finding.sentence  # n = 4, one share of it a colluder's


def test_no_tolerated_colluder_is_a_warning() -> None:
    assert check_masks(masked(tolerated_colluders=0)).level == "warn"


def test_no_masks_are_named() -> None:
    assert "reads each hospital's noised update" in check_masks(make_plan()).sentence


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (43_000_000, "43.0 MB"), (2e12, "2000.0 GB")],
)
def test_sizes_by_hand(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (42, "42 s"), (120, "2 min"), (7200, "2 h")])
def test_times_by_hand(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
