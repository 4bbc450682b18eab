"""The last lines of a run, and what is said about its data."""

import math

import pytest

from simulations import run_report
from simulations.run_report import describe_data
from simulations.scenario import Scenario, scenario_from_values


def files_scenario() -> Scenario:
    plan = {
        "name": "study",
        "rounds": 2,
        "task": {"labels": ["no", "yes"], "positive_label": "yes"},
        "privacy": {"epsilon": 8.0, "sampling_rate": 0.5, "divisor": 4.0},
        "optimizer": {"learning_rate": 1.0},
    }
    files = {"train": ["train.csv"], "test": ["test.csv"]}
    return scenario_from_values({"base": "base", "plan": plan, "data": {"files": files}}, "test")


def test_data_are_described_by_file_names_alone() -> None:
    scenario = files_scenario()
    assert describe_data(scenario) == "Private rows from train.csv, shared out to the sites by patient."
    notes = files_scenario().model_dump(mode="json")
    notes["data"] = {"notes": {}}
    made = scenario_from_values(notes, "test")
    assert "nobody's data" in describe_data(made)


@pytest.mark.parametrize(("value", "shown"), [(1.0, "1.00"), (1.001, "1.01"), (2.999, "3.00"), (math.inf, "infinite")])
def test_a_cost_is_never_rounded_down(value: float, shown: str) -> None:
    assert run_report._round_up(value) == shown
