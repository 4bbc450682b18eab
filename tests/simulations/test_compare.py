"""The arms of a comparison: all there, all at the same ε, all judged on the same test set."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import simulations.compare
from common.errors import ConfigError
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.plan import PrivacyPlan
from simulations.compare import ARMS, Comparison, Row, compare_arms, metric_of
from simulations.federation import Federated, Setting
from simulations.scenario import Scenario
from tests.tiny_scenario import CANARY, tiny_scenario, write_rows


def text_of(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(comparison.table)
    return console.file.getvalue()


def calibrated(folder: Path, base: Path, *overrides: str) -> Scenario:
    values = tiny_scenario(folder, base, *overrides).model_dump(mode="json")
    values["plan"]["privacy"] |= {"noise_multiplier": None, "epsilon": 8.0}
    return Scenario.model_validate(values)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> tuple[Comparison, list[Setting], str]:
    """One comparison of two seeds at one ε, the settings of its private arms, and what it said meanwhile."""
    folder, settings = tmp_path_factory.mktemp("compared"), []
    console = Console(file=io.StringIO(), width=100)
    with pytest.MonkeyPatch.context() as patch:
        federate = simulations.compare.federate

        def watched(setting: Setting) -> Federated:
            settings.append(setting)
            return federate(setting)

        patch.setattr(simulations.compare, "federate", watched)
        comparison = compare_arms(calibrated(folder, tiny_base), 2, (), console)
    return comparison, settings, console.file.getvalue()


def document_of(comparison: Comparison) -> dict:
    return json.loads((comparison.folder / "comparison.json").read_bytes())


# --- what is written -----------------------------------------------------------------------------------------------


def test_the_document_holds_every_arm_with_its_values(compared: tuple[Comparison, list[Setting], str]) -> None:
    document = document_of(compared[0])
    assert set(document) == {"format_version", "made", "scenario", "metric", "unit", "delta", "rows"}
    assert (document["metric"], document["unit"], document["delta"]) == ("AUC", "patient", 1e-5)
    assert [(row["arm"], row["epsilon"]) for row in document["rows"]] == [
        (arm, None if arm == "non-private, pooled" else 8.0) for arm in ARMS
    ]
    for row in document["rows"]:
        assert len(row["values"]) == 2
        assert all(0 <= value <= 1 for value in row["values"])
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
        assert row["spread"] == pytest.approx(abs(row["values"][0] - row["values"][1]) / 2**0.5)
    assert Scenario.model_validate(document["scenario"]).plan.privacy.epsilon == 8.0


def test_the_table_shows_the_document(compared: tuple[Comparison, list[Setting], str]) -> None:
    lines = text_of(compared[0]).splitlines()
    assert lines[0].strip() == "AUC on the test set, unit = patient, δ = 1e-05"
    assert lines[1].split() == ["arm", "ε", "mean", "±", "over", "seeds", "seeds"]
    for line, row in zip(lines[2:], document_of(compared[0])["rows"], strict=True):
        shown = "none" if row["epsilon"] is None else "8"
        assert line.split() == [*row["arm"].split(), shown, f"{row['mean']:.4f}", f"{row['spread']:.4f}", "2"]


def test_there_is_a_picture_and_nothing_quotes_a_record(compared: tuple[Comparison, list[Setting], str]) -> None:
    folder = compared[0].folder
    assert (folder / "comparison.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert all(path.is_dir() or CANARY.encode() not in path.read_bytes() for path in folder.rglob("*"))
    assert CANARY not in compared[2] + text_of(compared[0])


def test_each_arm_is_told_of_as_it_finishes(compared: tuple[Comparison, list[Setting], str]) -> None:
    lines = [line for line in compared[2].splitlines() if line.startswith("seed ")]
    assert len(lines) == 2 * len(ARMS)
    assert lines[0].startswith("seed 3  non-private, pooled: AUC 0.") or lines[0].endswith(" 1.0000")
    assert lines[-1].startswith("seed 4  head only, federated, ε 8: AUC ")


# --- what is compared ----------------------------------------------------------------------------------------------


def by_arm(settings: list[Setting], seed: int) -> dict[str, Setting]:
    return {setting.folder.name: setting for setting in settings if setting.seed == seed}


def test_arms_differ_in_who_takes_part_and_nothing_else(compared: tuple[Comparison, list[Setting], str]) -> None:
    arms = by_arm(compared[1], 3)
    assert list(arms) == [
        "DP-SGD-pooled-8",
        "federated-8",
        "DP-SGD-alone-0-8",
        "DP-SGD-alone-1-8",
        "head-only-pooled-8",
        "head-only-federated-8",
    ]
    assert [setting.plan.sites for setting in arms.values()] == [1, 2, 1, 1, 1, 2]
    # The pooled arm draws as many units as all hospitals together, so its divisor is theirs together.
    assert [setting.plan.privacy.divisor for setting in arms.values()] == [8.0, 4.0, 4.0, 4.0, 8.0, 4.0]
    assert [setting.plan.adapter.method for setting in arms.values()] == ["lora-b"] * 4 + ["head"] * 2
    assert len({setting.plan.optimizer for setting in arms.values()}) == 1
    assert len({setting.plan.rounds for setting in arms.values()}) == 1


def test_every_private_arm_keeps_the_same_epsilon(compared: tuple[Comparison, list[Setting], str]) -> None:
    spent = {cost(setting.plan) for setting in compared[1]}
    assert len(spent) == 1
    assert 7.9 < spent.pop() <= 8.0


def cost(plan: Plan) -> float:
    return epsilon(PrivacyPlan.from_terms(plan.privacy, plan.steps))


def test_the_pooled_arm_holds_all_rows_and_keeps_patients_apart(
    compared: tuple[Comparison, list[Setting], str],
) -> None:
    arms = by_arm(compared[1], 3)
    (pooled,) = arms["DP-SGD-pooled-8"].hospitals.values()
    parts = list(arms["federated-8"].hospitals.values())
    assert pooled.unit_count == sum(part.unit_count for part in parts) == 17
    assert sorted(np.bincount(pooled.units).tolist()) == [2] * 17
    np.testing.assert_array_equal(pooled.labels, np.concatenate([part.labels for part in parts]))
    hidden = pooled.prepared.at("full").values
    assert (hidden[: len(parts[0].prepared.at("full").values)] == parts[0].prepared.at("full").values).all()
    (first,) = arms["DP-SGD-alone-0-8"].hospitals.values()
    np.testing.assert_array_equal(first.labels, parts[0].labels)


def test_each_seed_has_its_own_partition(compared: tuple[Comparison, list[Setting], str]) -> None:
    one, other = (by_arm(compared[1], seed)["federated-8"].hospitals["hospital-1"].labels for seed in (3, 4))
    assert one.tolist() != other.tolist()


# --- targets, metric, refusals -------------------------------------------------------------------------------------


def test_given_targets_take_the_place_of_the_scenarios(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    class Result:
        def __init__(self, setting: Setting) -> None:
            plans.append(setting.plan)
            self.outcome = self
            self.model = self
            self.weights, self.basis = setting.model.start, np.zeros(0, dtype=np.float32)

    monkeypatch.setattr(simulations.compare, "federate", Result)
    # The scenario fixes the noise; a target makes it give way.
    scenario = tiny_scenario(tmp_path, tiny_base, "plan.rounds=1")
    comparison = compare_arms(scenario, 1, (2.0, 20.0, 2.0), Console(file=io.StringIO()))
    rows = document_of(comparison)["rows"]
    assert [(row["arm"], row["epsilon"]) for row in rows] == [
        (ARMS[0], None),
        *((arm, 2.0) for arm in ARMS[1:]),
        *((arm, 20.0) for arm in ARMS[1:]),
    ]
    assert all(cost(plan) <= 2.0 for plan in plans[:6])
    assert all(19.0 < cost(plan) <= 20.0 for plan in plans[6:])


def test_without_a_target_there_is_nothing_to_compare_at(tmp_path: Path, tiny_base: Path) -> None:
    with pytest.raises(ConfigError, match="needs a target ε") as caught:
        compare_arms(tiny_scenario(tmp_path, tiny_base), 1, (), Console(file=io.StringIO()))
    assert "--epsilon" in caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_unfit_data_are_refused_and_leave_no_folder(tmp_path: Path, tiny_base: Path) -> None:
    scenario = calibrated(tmp_path, tiny_base)
    write_rows(tmp_path / "data" / "test.csv", "p", patients=3)
    with pytest.raises(ConfigError, match=r"check\(s\) failed"):
        compare_arms(scenario, 1, (), Console(file=io.StringIO()))
    assert not (tmp_path / "runs").exists()


def test_without_a_positive_label_accuracy_judges(tmp_path: Path) -> None:
    scenario = tiny_scenario(tmp_path, Path("base"))
    assert metric_of(scenario) == "AUC"
    task = scenario.plan.task.model_copy(update={"positive_label": None})
    plan = scenario.plan.model_copy(update={"task": task})
    assert metric_of(scenario.model_copy(update={"plan": plan})) == "accuracy"


def test_mean_and_spread_by_hand() -> None:
    row = Row("federated", 3.0, (0.9, 0.8, 0.7))
    assert (row.mean, row.spread) == (pytest.approx(0.8), pytest.approx(0.1))
    assert Row("federated", 3.0, (0.9,)).spread == 0.0
