"""The quotients, with clocks and models of our own."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from simulations import bench
from simulations.scenario import Scenario
from simulations.world import build_world, open_base
from tests.tiny_scenario import tiny_scenario


class Clock:
    """A clock that only calls move."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(bench, "time", made)
    return made


def taking(clock: Clock, durations: list[float], order: list[str], name: str):
    """A call that takes these times, one after the other."""
    left = iter(durations)

    def call() -> None:
        order.append(name)
        clock.now += next(left)

    return call


def test_the_ratio_is_that_of_medians_without_the_first_turn(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_TURNS", 3)
    order: list[str] = []
    one = taking(clock, [1000.0, 3.0, 6.0, 500.0], order, "one")
    other = taking(clock, [0.001, 2.0, 0.1, 4.0], order, "other")
    assert bench._ratio(one, other) == 3.0
    assert order == ["one", "other"] * 4


def distributed(folder: Path, base: Path) -> Scenario:
    """The tiny scenario in the mode that the demo has."""
    values = tiny_scenario(folder, base).model_dump(mode="json")
    values["plan"] |= {"mode": "distributed", "local_steps": 1, "secure_aggregation": {}}
    values["hospitals"] |= {"count": 4}
    return Scenario.model_validate(values)


@pytest.mark.parametrize("make", [tiny_scenario, distributed])
def test_the_steps_that_are_timed_see_the_same_rows(
    make, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both calls are run once, and both move the model."""
    scenario = make(tmp_path, tiny_base)
    seen = []

    def once(private, plain) -> float:
        models = {id(cell.cell_contents): cell.cell_contents for cell in plain.__closure__}
        (model,) = [value for value in models.values() if isinstance(value, bench.TrainableModel)]
        for call in (private, plain):
            before = model.read()
            call()
            seen.append((model.read() != before).any())
        return 1.0

    monkeypatch.setattr(bench, "_ratio", once)
    assert bench.step_ratio(open_base(scenario), scenario) == 1.0
    assert seen == [True, True]


def demo_of_tiny(folder: Path, base: Path) -> Scenario:
    """The scenario of the tiny base with notes for data, as the demo has."""
    values = tiny_scenario(folder, base).model_dump(mode="json")
    values |= {"data": {"notes": {}}, "hospitals": {}}
    values["plan"]["task"] |= {"labels": ["no_reaction", "reaction"], "positive_label": "reaction"}
    return Scenario.model_validate(values)


def test_the_short_demo_has_the_asked_size_and_trains_the_adapter_from_the_start(
    tmp_path: Path, tiny_base: Path
) -> None:
    scenario = bench._short(demo_of_tiny(tmp_path, tiny_base), hospitals=3, patients=5)
    world = build_world(scenario)
    assert [part.patient_count for part in world.splits.hospitals] == [5, 5, 5]
    assert (world.plan.rounds, world.model.stages) == (3, ("full",))


def test_the_simulations_figure_is_a_quotient_of_the_run(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = SimpleNamespace(seconds=3.3, local_seconds=3.0)
    monkeypatch.setattr(bench, "_federate", lambda world, folder: result)
    monkeypatch.setattr(bench, "_short", lambda scenario, hospitals, patients: tiny_scenario(tmp_path, tiny_base))
    figures = {name: value for name, value, _ in bench.simulation_figures(demo_of_tiny(tmp_path, tiny_base))}
    assert figures == {"whole simulation / its local compute": "1.100"}


def test_the_benched_run_is_a_real_one(tmp_path: Path, tiny_base: Path) -> None:
    world = build_world(tiny_scenario(tmp_path, tiny_base))
    folder = tmp_path / "run"
    folder.mkdir()
    federated = bench._federate(world, folder)
    assert federated.steps_charged == {"hospital-1": 4, "hospital-2": 4}
    assert 4 * 98 < federated.traffic.reply_bytes / federated.traffic.replies < 4 * 98 + 500


def test_the_benched_run_of_mode_distributed_is_a_real_one(tmp_path: Path, tiny_base: Path) -> None:
    world = build_world(distributed(tmp_path, tiny_base))
    folder = tmp_path / "run"
    folder.mkdir()
    assert set(bench._federate(world, folder).steps_charged.values()) == {2}


def test_memory_figures_are_a_quotient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_peak_megabytes", {4: 1000.0, 16: 1250.0}.__getitem__)
    assert [value for _, value, _ in bench.memory_figures()] == ["1,000 MB", "1,250 MB", "1.250"]


def test_main_prints_a_line_a_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("step_figures", "simulation_figures"):
        monkeypatch.setattr(bench, name, lambda scenario, name=name: [(name, "1.000", "<= 1.05")])
    monkeypatch.setattr(bench, "memory_figures", lambda: [("memory", "5 MB", "")])
    monkeypatch.setattr(bench, "secagg_figures", lambda: iter([("masks", "3 ms", "")]))
    bench.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-4:] == [
        ["step_figures", "1.000", "<=", "1.05"],
        ["simulation_figures", "1.000", "<=", "1.05"],
        ["memory", "5", "MB"],
        ["masks", "3", "ms"],
    ]
