"""The arms of a comparison: all there, all at the same ε, all judged on the same test set."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from common.errors import ConfigError, UsageError
from simulations.arms import ARMS, DISTRIBUTED, NON_PRIVATE, PER_SITE
from simulations.compare import Comparison, Row, compare_arms
from simulations.scenario import Scenario
from simulations.seed_run import SeedRun
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
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> tuple[Comparison, str]:
    """One comparison of two seeds at one ε, and what it said meanwhile."""
    folder, console = tmp_path_factory.mktemp("compared"), Console(file=io.StringIO(), width=100)
    comparison = compare_arms(calibrated(folder, tiny_base, "hospitals.count=4"), 2, (), console)
    return comparison, console.file.getvalue()


def document_of(comparison: Comparison) -> dict:
    return json.loads((comparison.folder / "comparison.json").read_bytes())


# --- what is written -----------------------------------------------------------------------------------------------


def test_the_document_holds_every_arm_with_its_values(compared: tuple[Comparison, str]) -> None:
    document = document_of(compared[0])
    assert set(document) == {"format_version", "made", "scenario", "metric", "unit", "delta", "rows"}
    assert (document["metric"], document["unit"], document["delta"]) == ("AUC", "patient", 1e-5)
    assert [(row["arm"], row["epsilon"]) for row in document["rows"]] == [
        (arm, None if arm == NON_PRIVATE else 8.0) for arm in ARMS
    ]
    for row in document["rows"]:
        assert len(row["values"]) == 2
        assert all(0 <= value <= 1 for value in row["values"])
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
        assert row["spread"] == pytest.approx(abs(row["values"][0] - row["values"][1]) / 2**0.5)
    assert Scenario.model_validate(document["scenario"]).plan.privacy.epsilon == 8.0


def test_the_table_shows_the_document(compared: tuple[Comparison, str]) -> None:
    lines = text_of(compared[0]).splitlines()
    assert lines[0].strip() == "AUC on the test set, unit = patient, δ = 1e-05"
    assert lines[1].split() == ["arm", "ε", "mean", "±", "over", "seeds", "seeds"]
    for line, row in zip(lines[2:], document_of(compared[0])["rows"], strict=True):
        shown = "none" if row["epsilon"] is None else "8"
        assert line.split() == [*row["arm"].split(), shown, f"{row['mean']:.4f}", f"{row['spread']:.4f}", "2"]


def test_there_is_a_picture_and_nothing_quotes_a_record(compared: tuple[Comparison, str]) -> None:
    folder = compared[0].folder
    assert (folder / "comparison.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert all(path.is_dir() or CANARY.encode() not in path.read_bytes() for path in folder.rglob("*"))
    assert CANARY not in compared[1] + text_of(compared[0])


def test_each_arm_is_told_of_as_it_finishes(compared: tuple[Comparison, str]) -> None:
    lines = [line for line in compared[1].splitlines() if ": AUC " in line]
    assert len(lines) == 2 * len(ARMS)
    assert lines[0].startswith("seed 3  non-private, pooled: AUC 0.") or lines[0].endswith(" 1.0000")
    assert lines[-1].startswith("seed 4  head only, distributed, ε 8: AUC ")


# --- targets, metric, refusals -------------------------------------------------------------------------------------


def test_given_targets_take_the_place_of_the_scenarios(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SeedRun, "_arm", lambda _run, _arm, target: 0.5 if target is None else target / 100)
    # The scenario fixes the noise; a target makes it give way.
    scenario = tiny_scenario(tmp_path, tiny_base, "plan.rounds=1", "hospitals.count=4")
    comparison = compare_arms(scenario, 1, (2.0, 20.0, 2.0), Console(file=io.StringIO()))
    rows = document_of(comparison)["rows"]
    expected = [(NON_PRIVATE, None), *((arm, target) for arm in list(ARMS)[1:] for target in (2.0, 20.0))]
    assert [(row["arm"], row["epsilon"]) for row in rows] == expected
    assert [row["mean"] for row in rows[:3]] == [0.5, 0.02, 0.2]


def test_arms_can_be_chosen_by_name(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeedRun, "_arm", lambda *_: 0.5)
    scenario = calibrated(tmp_path, tiny_base, "hospitals.count=4")
    comparison = compare_arms(scenario, 1, (), Console(file=io.StringIO()), (PER_SITE, DISTRIBUTED))
    assert [row["arm"] for row in document_of(comparison)["rows"]] == [DISTRIBUTED, PER_SITE]
    with pytest.raises(UsageError, match="'federated' is no arm of this comparison"):
        compare_arms(scenario, 1, (), Console(file=io.StringIO()), ("federated",))


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


def test_mean_and_spread_by_hand() -> None:
    row = Row("distributed", 3.0, (0.9, 0.8, 0.7))
    assert (row.mean, row.spread) == (pytest.approx(0.8), pytest.approx(0.1))
    assert Row("distributed", 3.0, (0.9,)).spread == 0.0
