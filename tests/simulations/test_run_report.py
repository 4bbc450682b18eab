"""The last lines of a run, and what is said about its data."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from common.privacy.accountant import epsilon
from simulations import run_report
from simulations.run_report import describe_data, last_lines, mechanism_of, round_teller
from simulations.scenario import Scenario, scenario_from_values
from simulations.view import RoundFigures
from tests.plans import make_plan
from tests.server.small_report import distributed_plan, report_of


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


def test_the_cost_of_mode_distributed_says_how_many_may_collude() -> None:
    assert "of each hospital\n" in last_lines(Path("run"), report_of(make_plan()))
    said = "for each patient of each hospital, while at most 1 of 5 hospitals collude with the coordinator\n"
    assert said in last_lines(Path("run"), report_of(distributed_plan()))
    nobody = distributed_plan(secure_aggregation={"masked": True, "tolerated_colluders": 0})
    assert "not against another hospital, which knows its own noise" in last_lines(Path("run"), report_of(nobody))


def test_the_mechanism_is_that_of_the_mode() -> None:
    own, shared = mechanism_of(make_plan()), mechanism_of(distributed_plan())
    assert (own.noise, own.noise_shares, own.steps) == ("gaussian", 1, 4)
    assert (shared.noise, shared.noise_shares, shared.steps) == ("skellam", 3, 2)


class Listener:
    """A view that keeps what it is told of rounds."""

    def __init__(self) -> None:
        self.told: list[RoundFigures] = []

    def round_finished(self, figures: RoundFigures) -> None:
        self.told.append(figures)


def test_the_view_is_told_cost_figures_and_why_a_round_was_lost() -> None:
    plan, view = distributed_plan(), Listener()
    tell = round_teller(view, plan)
    lost, judged, _ = report_of(plan).outcome.rounds
    tell(replace(lost, abort="too few shares"))
    tell(judged)
    tell(replace(judged, validation=None))
    tell(lost)
    assert [figures.remark for figures in view.told] == [
        "nothing changed: too few shares",
        "",
        "",
        "nothing changed: too few sites",
    ]
    assert view.told[1].figures == {"validation loss": 0.25, "validation AUC": 0.9, "test AUC": 0.7}
    assert (view.told[0].figures, view.told[2].figures) == ({}, {})
    assert view.told[1].epsilon == pytest.approx(epsilon(mechanism_of(plan)))  # after the last of two rounds
    assert (view.told[1].round_number, view.told[1].answered) == (2, 2)
