from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.plan import BaseIdentity
from common.privacy.accountant import epsilon
from common.privacy.plan import PrivacyPlan
from server.planning import finish_plan
from simulations.scenario import Scenario
from tests.tiny_scenario import tiny_scenario

IDENTITY = BaseIdentity(name="tiny", files={"config.json": "0" * 64})


@pytest.mark.parametrize("target", [1.0, 8.0])
def test_the_noise_keeps_the_target_and_wastes_nothing(tmp_path: Path, target: float) -> None:
    scenario = calibrated(tmp_path, target)
    plan = finish_plan(scenario.plan, 2, IDENTITY, {})
    mechanism = PrivacyPlan.from_terms(plan.privacy, plan.steps)
    assert epsilon(mechanism) <= target
    assert epsilon(replace(mechanism, noise_multiplier=mechanism.noise_multiplier - 2e-4)) > target


def calibrated(folder: Path, target: float) -> Scenario:
    values = tiny_scenario(folder, Path("base")).model_dump(mode="json")
    values["plan"]["privacy"] |= {"noise_multiplier": None, "epsilon": target}
    return Scenario.model_validate(values)


def test_a_given_noise_is_taken_as_it_is(tmp_path: Path) -> None:
    plan = finish_plan(tiny_scenario(tmp_path, Path("base")).plan, 2, IDENTITY, {})
    assert plan.privacy.noise_multiplier == 1.0
    assert (plan.sites, plan.base) == (2, IDENTITY)


def shown(error: ConfigError) -> str:
    """Every word of an error, as a person sees it."""
    return "\n".join((error.message, *(f"{problem}\n{problem.hint}" for problem in error.problems), error.hint))


def test_an_epsilon_out_of_reach_is_told_once_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        finish_plan(calibrated(tmp_path, 1e-9).plan, 2, IDENTITY, {})
    assert shown(caught.value).count("no noise multiplier up to 1000 reaches it (found 1e-09)") == 1
    assert shown(caught.value).count("raise `privacy.epsilon`") == 1


@pytest.mark.parametrize(
    ("sites", "terms", "message", "mend"),
    [
        (3, {"tolerated_dropouts": 2}, "3 hospitals", "with 3 hospitals and 1 colluder, tolerated_dropouts may be"),
        (5, {"tolerated_dropouts": 3, "threshold": 2}, "5 hospitals", "; leave threshold out"),
        (1, {}, "1 hospital", 'use more hospitals, or mode = "per-site"'),
    ],
)
def test_what_does_not_fit_so_many_sites_has_one_mend(
    tmp_path: Path, sites: int, terms: dict[str, int], message: str, mend: str
) -> None:
    draft = tiny_scenario(tmp_path, Path("base")).plan
    masked = type(draft.secure_aggregation)(masked=True, **terms)
    with pytest.raises(ConfigError) as caught:
        finish_plan(draft.model_copy(update={"secure_aggregation": masked}), sites, IDENTITY, {})
    assert caught.value.message == f"the plan does not fit {message}"
    assert shown(caught.value).count(mend) == 1


def test_the_roster_is_taken_up_as_it_is(tmp_path: Path) -> None:
    draft = tiny_scenario(tmp_path, Path("base")).plan
    roster = {"a": "1" * 64, "b": "2" * 64}
    assert finish_plan(draft, 2, IDENTITY, roster).roster == roster
