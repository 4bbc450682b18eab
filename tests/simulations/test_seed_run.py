"""One seed of a comparison: what each arm is given."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import simulations.seed_run
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.mechanism import mechanism_of
from common.privacy.plan import PrivacyPlan
from simulations.arms import ALONE, DISTRIBUTED, HEAD_DISTRIBUTED, HEAD_POOLED, PER_SITE, POOLED, POOLED_NOISIER
from simulations.federation import Setting
from simulations.scenario import Scenario
from simulations.seed_run import SeedRun, metric_of
from tests.tiny_scenario import tiny_scenario

SITES = 4


def calibrated(folder: Path, base: Path, *overrides: str) -> Scenario:
    values = tiny_scenario(folder, base, f"hospitals.count={SITES}", *overrides).model_dump(mode="json")
    values["plan"]["privacy"] |= {"noise_multiplier": None, "epsilon": 8.0}
    return Scenario.model_validate(values)


class Watched:
    """A seed's run in which nothing is trained: what each arm would be given is kept by name."""

    def __init__(self, folder: Path, base: Path, patch: pytest.MonkeyPatch) -> None:
        self.settings: dict[str, Setting] = {}
        self.places: dict[str, list[tuple[Any, PrivacyPlan, str]]] = {}
        self._arm = ""
        patch.setattr(simulations.seed_run, "federate", self.federate)
        patch.setattr(simulations.seed_run, "train_with_privacy", self.train)
        for arm in (POOLED, POOLED_NOISIER, DISTRIBUTED, PER_SITE, ALONE, HEAD_POOLED, HEAD_DISTRIBUTED):
            self._arm = arm
            run = SeedRun(calibrated(folder / arm, base), Console(file=io.StringIO()), (arm,))
            run.folder = folder / arm / "arms"
            list(run.all_arms((8.0,)))

    def federate(self, setting: Setting) -> Any:
        self.settings[self._arm] = self.outcome = self.model = setting
        self.weights, self.basis = setting.model.start, np.zeros(0, dtype=np.float32)
        return type("Federated", (), {"outcome": type("Outcome", (), {"model": self})})

    def train(self, model: Any, data: Any, mechanism: PrivacyPlan, source: object) -> np.ndarray:
        self.places.setdefault(self._arm, []).append((data, mechanism, model.plan.adapter.method))
        return model.start


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path):
    with pytest.MonkeyPatch.context() as patch:
        yield Watched(tmp_path_factory.mktemp("seed"), tiny_base, patch)


def test_who_takes_part(watched: Watched) -> None:
    assert set(watched.settings) == {DISTRIBUTED, PER_SITE, HEAD_DISTRIBUTED}
    assert all(setting.plan.sites == SITES for setting in watched.settings.values())
    assert {arm: len(places) for arm, places in watched.places.items()} == {
        POOLED: 1,
        POOLED_NOISIER: 1,
        ALONE: SITES,
        HEAD_POOLED: 1,
    }


def test_every_arm_takes_the_same_steps_with_the_same_optimizer(watched: Watched) -> None:
    plans = [setting.plan for setting in watched.settings.values()]
    assert {plan.steps for plan in plans} == {
        mechanism.steps for arm in watched.places.values() for _, mechanism, _ in arm
    }
    assert len({plan.optimizer for plan in plans}) == 1
    assert watched.settings[PER_SITE].plan.local_steps == 2
    assert watched.settings[DISTRIBUTED].plan.rounds == 4


def test_divisors_stand_for_those_who_take_part(watched: Watched) -> None:
    (_, pooled, _), (_, alone, _) = watched.places[POOLED][0], watched.places[ALONE][0]
    assert pooled.divisor == watched.settings[DISTRIBUTED].plan.privacy.divisor == 16.0
    assert alone.divisor == watched.settings[PER_SITE].plan.privacy.divisor == 4.0


def spent(mechanism: PrivacyPlan) -> float:
    return epsilon(mechanism)


def plan_spends(plan: Plan) -> float:
    return epsilon(mechanism_of(plan))


def test_every_private_arm_keeps_the_same_epsilon(watched: Watched) -> None:
    figures = [plan_spends(setting.plan) for setting in watched.settings.values()]
    figures += [spent(watched.places[arm][0][1]) for arm in (POOLED, ALONE, HEAD_POOLED)]
    assert all(7.9 < figure <= 8.0 for figure in figures)


def test_the_noisier_pooled_arm_has_all_the_noise_that_the_sites_add(watched: Watched) -> None:
    mechanism = mechanism_of(watched.settings[DISTRIBUTED].plan)
    added = SITES * mechanism.share_variance
    assert watched.places[POOLED_NOISIER][0][1].noise_scale ** 2 == pytest.approx(added)
    assert spent(watched.places[POOLED_NOISIER][0][1]) < 8.0


def test_the_pooled_arm_holds_all_rows_and_keeps_patients_apart(watched: Watched) -> None:
    pooled = watched.places[POOLED][0][0]
    parts = list(watched.settings[DISTRIBUTED].hospitals.values())
    assert pooled.unit_count == sum(part.unit_count for part in parts) == 17
    assert sorted(np.bincount(pooled.units).tolist()) == [2] * 17
    np.testing.assert_array_equal(pooled.labels, np.concatenate([part.labels for part in parts]))
    np.testing.assert_array_equal(watched.places[ALONE][1][0].labels, parts[1].labels)


def test_arms_of_the_head_train_the_head_alone(watched: Watched) -> None:
    assert watched.settings[HEAD_DISTRIBUTED].plan.adapter.method == "head"
    assert watched.places[HEAD_POOLED][0][2] == "head"
    assert watched.settings[DISTRIBUTED].plan.adapter.method == watched.places[POOLED][0][2] == "lora-b"


def test_each_seed_has_its_own_partition(tmp_path: Path, tiny_base: Path) -> None:
    runs = [
        SeedRun(calibrated(tmp_path / str(seed), tiny_base, f"seed={seed}"), Console(file=io.StringIO()))
        for seed in (3, 4)
    ]
    one, other = ([run._joined([number]).labels.tolist() for number in range(SITES)] for run in runs)
    assert one != other


def test_without_a_positive_label_accuracy_judges(tmp_path: Path) -> None:
    scenario = tiny_scenario(tmp_path, Path("base"))
    assert metric_of(scenario) == "AUC"
    task = scenario.plan.task.model_copy(update={"positive_label": None})
    plan = scenario.plan.model_copy(update={"task": task})
    assert metric_of(scenario.model_copy(update={"plan": plan})) == "accuracy"
