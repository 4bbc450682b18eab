"""What a run folder says of itself, and who may work in it."""

import json
import threading
import time
from pathlib import Path

import pytest

from common.errors import IntegrityError, TryAgainError
from simulations.run_folder import PLAN_NAME, SCENARIO_NAME, alone, read_plan, read_scenario, read_table
from tests.plans import make_plan
from tests.tiny_scenario import tiny_scenario


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan = make_plan()
    document = {"digest": plan.digest, "plan": plan.model_dump(mode="json")}
    (tmp_path / PLAN_NAME).write_text(json.dumps(document))
    assert read_plan(tmp_path) == plan


@pytest.mark.parametrize("damage", [{"digest": "0" * 64}, {"plan": None}, {"plan": []}])
def test_a_plan_that_its_digest_does_not_name_is_damaged(tmp_path: Path, damage: dict) -> None:
    plan = make_plan()
    document = {"digest": plan.digest, "plan": plan.model_dump(mode="json"), **damage}
    (tmp_path / PLAN_NAME).write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match=r"plan\.json is damaged"):
        read_plan(tmp_path)


def test_a_scenario_comes_back_as_it_was_written(tmp_path: Path) -> None:
    scenario = tiny_scenario(tmp_path, tmp_path / "base")
    (tmp_path / SCENARIO_NAME).write_text(scenario.model_dump_json())
    assert read_scenario(tmp_path) == scenario


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_what_is_no_table_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "any.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"any\.json is damaged"):
        read_table(tmp_path / "any.json")


def test_one_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(TryAgainError, match="another process runs in"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_who_waits_comes_in_when_the_other_has_left(tmp_path: Path) -> None:
    events: list[str] = []

    def other() -> None:
        with alone(tmp_path, wait=True):
            events.append("other in")

    with alone(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.1)
        events.append("first out")
    thread.join()
    assert events == ["first out", "other in"]
