from itertools import combinations
from pathlib import Path

import pytest

from common.errors import ConfigError, DataError
from common.plan import BaseIdentity
from common.records.records import Records
from simulations.scenario import Scenario
from simulations.world import Splits, build_world, finish_plan, load_splits, site_names
from tests.tiny_scenario import CANARY, tiny_scenario, write_rows

IDENTITY = BaseIdentity(name="tiny", files={"config.json": "0" * 64})


def patients(records: Records) -> set[bytes]:
    return set(records.patient_keys)


def parts(splits: Splits) -> list[Records]:
    return [*splits.hospitals, splits.validation, splits.test]


def test_sites_are_numbered_with_equal_width() -> None:
    assert site_names(2) == ("hospital-1", "hospital-2")
    assert (site_names(12)[0], site_names(12)[-1]) == ("hospital-01", "hospital-12")


# --- who holds what ------------------------------------------------------------------------------------------------


def test_every_row_is_in_one_part_and_no_patient_in_two(tmp_path: Path) -> None:
    splits = load_splits(tiny_scenario(tmp_path, Path("base"), "hospitals.count=3"))
    assert len(splits.hospitals) == 3
    assert sum(map(len, (*splits.hospitals, splits.validation))) == 40
    assert len(splits.test) == 16
    for one, other in combinations(parts(splits), 2):
        assert patients(one)
        assert not patients(one) & patients(other)


def test_labels_are_those_of_the_plan_in_its_order(tmp_path: Path) -> None:
    for labels, event in (('["none", "event"]', 1), ('["event", "none"]', 0)):
        splits = load_splits(tiny_scenario(tmp_path, Path("base"), f"plan.task.labels={labels}"))
        rows = [row for part in parts(splits) for row in zip(part.texts, part.labels.tolist(), strict=True)]
        assert all((label == event) == ("rash" in text) for text, label in rows)


def test_a_fraction_of_the_patients_is_set_apart_for_validation(tmp_path: Path) -> None:
    splits = load_splits(tiny_scenario(tmp_path, Path("base"), "data.files.validation_fraction=0.3"))
    assert splits.validation.patient_count == 6
    assert sum(part.patient_count for part in splits.hospitals) == 14


def test_validation_files_leave_the_training_files_whole(tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "held.csv", "v", patients=3)
    scenario = tiny_scenario(tmp_path, Path("base"), 'data.files.validation=["held.csv"]')
    splits = load_splits(scenario)
    assert splits.validation.patient_count == 3
    assert sum(part.patient_count for part in splits.hospitals) == 20


def test_the_same_seed_gives_the_same_parts_and_another_gives_others(tmp_path: Path) -> None:
    def texts(*overrides: str) -> list[tuple[str, ...]]:
        return [part.texts for part in parts(load_splits(tiny_scenario(tmp_path, Path("base"), *overrides)))]

    assert texts() == texts()
    assert texts()[-2] != texts("seed=4")[-2], "other patients are set apart"
    write_rows(tmp_path / "data" / "held.csv", "v", patients=3)
    held = 'data.files.validation=["held.csv"]'
    assert texts(held)[0] != texts(held, "seed=4")[0], "other patients are at the first hospital"


def test_notes_make_as_many_hospitals_as_they_are_asked_for(tmp_path: Path) -> None:
    notes = tiny_scenario(tmp_path, Path("base")).model_dump(mode="json")
    del notes["hospitals"]
    notes["data"] = {
        "notes": {"hospitals": 3, "patients_per_hospital": 4, "validation_patients": 2, "test_patients": 5}
    }
    splits = load_splits(Scenario.model_validate(notes))
    assert [part.patient_count for part in parts(splits)] == [4, 4, 4, 2, 5]


def test_unfit_data_are_told_without_a_record_and_before_a_model_is_loaded(tmp_path: Path) -> None:
    scenario = tiny_scenario(tmp_path, Path("no such base"), "data.files.columns.label=verdict")
    with pytest.raises(DataError) as caught:
        build_world(scenario)
    shown = f"{caught.value} {caught.value.hint} {caught.value.problems}"
    assert "train.csv" in shown
    assert "verdict" in shown
    assert CANARY not in shown


def test_the_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    files = ("train", "test", "validation")
    scenario = tiny_scenario(tmp_path, Path("base"), *(f'data.files.{name}=["no-{name}.csv"]' for name in files))
    with pytest.raises(DataError, match="3 problems") as caught:
        load_splits(scenario)
    assert [Path(problem.where).name for problem in caught.value.problems] == [f"no-{name}.csv" for name in files]


def test_a_data_folder_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"elsewhere does not exist") as caught:
        load_splits(tiny_scenario(tmp_path, Path("base"), "data.files.folder=elsewhere"))
    assert "--data" in caught.value.hint


def test_a_device_that_is_not_there_is_one_sentence(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch finds no GPU") as caught:
        build_world(tiny_scenario(tmp_path, tiny_base, "compute.device=cuda"))
    assert caught.value.hint == 'set compute.device = "cpu"'


# --- the plan ------------------------------------------------------------------------------------------------------


CHANGES = (
    "plan.name=other",
    "plan.rounds=3",
    "plan.minimum_sites=2",
    "plan.seed=2",
    "plan.task.max_tokens=8",
    "plan.task.pool_layers=2",
    'plan.task.positive_label="none"',
    "plan.adapter.method=head",
    "plan.adapter.rank=1",
    "plan.adapter.feature_scale=2.0",
    'plan.adapter.targets=["key"]',
    "plan.privacy.unit=record",
    "plan.privacy.noise_multiplier=1.5",
    "plan.privacy.delta=1e-6",
    "plan.privacy.sampling_rate=0.4",
    "plan.privacy.divisor=5.0",
    "plan.privacy.clip_norm=0.5",
    "plan.privacy.grid_bits=12",
    "plan.local_steps=3",
    "plan.optimizer.learning_rate=0.25",
    "plan.optimizer.head_learning_rate=0.25",
    "plan.server.learning_rate=0.5",
    "plan.stopping.patience_rounds=1",
    "hospitals.count=3",
)


def test_any_change_of_the_plan_changes_its_digest(tmp_path: Path) -> None:
    def digest(*overrides: str) -> str:
        scenario = tiny_scenario(tmp_path, Path("base"), *overrides)
        return finish_plan(scenario.plan, scenario.hospitals.count, IDENTITY).digest

    digests = [digest(), *(digest(change) for change in CHANGES)]
    assert len(set(digests)) == len(CHANGES) + 1
    same = ("compute.threads=1", "compute.tokens_per_batch=64", "seed=9", "network.drop=0.5", "output=elsewhere")
    assert {digest(change) for change in same} == {digests[0]}


def test_another_base_gives_another_digest(tmp_path: Path) -> None:
    draft = tiny_scenario(tmp_path, Path("base")).plan
    other = BaseIdentity(name="tiny", files={"config.json": "1" * 64})
    assert finish_plan(draft, 2, IDENTITY).digest != finish_plan(draft, 2, other).digest


# --- everything together -------------------------------------------------------------------------------------------


def test_two_builds_of_a_scenario_agree_on_plan_and_start(tmp_path: Path, tiny_base: Path) -> None:
    one, other = (build_world(tiny_scenario(tmp_path, tiny_base)) for _ in range(2))
    assert one.plan.digest == other.plan.digest
    assert one.model.start.tobytes() == other.model.start.tobytes()
    assert one.model.basis().tobytes() == other.model.basis().tobytes()
    assert one.sites == ("hospital-1", "hospital-2")
    assert (one.base_name, one.plan.base.name, one.plan.sites) == ("tiny", "tiny", 2)


def test_a_world_prints_nothing_of_its_rows(tmp_path: Path, tiny_base: Path) -> None:
    world = build_world(tiny_scenario(tmp_path, tiny_base))
    assert CANARY not in f"{world!r} {world.splits!r} {world.splits.test!r}"
