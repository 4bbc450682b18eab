"""A run's order of events with everything around it replaced; tests/end_to_end conducts real ones."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import server.conduct
from common.audit_events import RunBegan, RunEnded
from common.errors import ConfigError, IntegrityError, TooFewSitesError, TransportError
from server.conduct import RunParts, conduct, find_plan_base
from server.config import load_coordinator_config
from server.progress import PhaseProgress, RoundProgress, read_progress
from server.public_data import PublicSets
from server.run_files import ADAPTER_NAME, RESULTS_NAME
from tests.federation_play import make_federation

ORDER = [
    "load_base",
    "open_public_sets",
    "check_setup",
    "load_checkpoint",
    "Gathering",
    "run",
    "_report",
    "_write_result",
]


@pytest.fixture(scope="module")
def federation(tmp_path_factory, tiny_base):
    return make_federation(tmp_path_factory.mktemp("play"), tiny_base)


@pytest.fixture(scope="module")
def signed(federation):
    return federation.sign(approved=False)


class Audit:
    def __init__(self):
        self.events = []
        self.error = None

    def record(self, event):
        if self.error is not None:
            raise self.error
        self.events.append(event)


class Silence:
    """A transport on which nobody answers."""

    def __init__(self):
        self.asked = []

    def exchange(self, orders):
        self.asked.append(sorted(orders))
        return iter(())


class Stage:
    """A run whose steps are noted instead of done; `failing` names those that raise."""

    def __init__(self, monkeypatch, parts):
        self.parts, self.steps, self.failing, self.history = parts, [], {}, ()
        model = SimpleNamespace(start=np.zeros(2), groups={}, basis=lambda: np.zeros(0), spec=None, basis_spec=None)
        results = {
            "TrainableModel": model,
            "open_public_sets": PublicSets(),
            "run": SimpleNamespace(rounds=()),
            "Gathering": SimpleNamespace(run=lambda *_, **__: ()),
        }
        names = (*ORDER, "TrainableModel", "BaseStore", "dismiss")
        for name in names:
            monkeypatch.setattr(server.conduct, name, self._step(name, results.get(name)))

    def _step(self, name, result):
        def step(*_, **__):
            self.steps.append(name)
            if name in self.failing:
                raise self.failing[name]
            if name == "load_checkpoint":
                return SimpleNamespace(history=self.history) if self.history else None
            return result

        return step

    @property
    def phases(self):
        return [event.phase for event in read_progress(self.parts.folder)[0] if isinstance(event, PhaseProgress)]

    @property
    def ends(self):
        return [event.outcome for event in self.parts.audit.events if isinstance(event, RunEnded)]


@pytest.fixture
def stage(monkeypatch, tmp_path, federation, signed):
    config = load_coordinator_config(federation.coordinator.config)
    return Stage(monkeypatch, RunParts(signed, config, tmp_path, Silence(), Audit(), enough=3))


def summary(number):
    return SimpleNamespace(round_number=number, applied=True, validation=None)


def test_everything_that_can_be_wrong_here_is_looked_at_before_a_hospital_is_asked(stage):
    conduct(stage.parts)
    assert [step for step in stage.steps if step in ORDER] == ORDER
    assert stage.steps[-1] == "dismiss"
    assert stage.phases == ["preparing", "gathering", "training", "finished"]
    assert stage.parts.audit.events == [
        RunBegan(plan=stage.parts.signed.digest, next_round=1),
        RunEnded(plan=stage.parts.signed.digest, outcome="finished"),
    ]


def test_a_round_tells_who_left_an_order_unanswered(stage, monkeypatch):
    def one_round(setup, folder, *, resume):
        list(setup.transport.exchange(dict.fromkeys("ab", b"order")))
        setup.observer(SimpleNamespace(**vars(summary(1)), survivors=1, seconds=1.0, refusals={}, abort=""))
        return SimpleNamespace(rounds=())

    monkeypatch.setattr(server.conduct, "run", one_round)
    conduct(stage.parts)
    rounds = [event for event in read_progress(stage.parts.folder)[0] if isinstance(event, RoundProgress)]
    assert [event.silent for event in rounds] == [("a", "b")]


@pytest.mark.parametrize("step", ["load_base", "open_public_sets", "check_setup", "load_checkpoint"])
def test_where_that_is_wrong_no_hospital_is_asked(stage, step):
    stage.failing[step] = ConfigError("not in order")
    with pytest.raises(ConfigError):
        conduct(stage.parts)
    assert "Gathering" not in stage.steps
    assert stage.ends == ["failed"]


@pytest.mark.parametrize(
    "error", [TooFewSitesError("x"), OSError(28, "full"), ValueError("x"), MemoryError()], ids=repr
)
@pytest.mark.parametrize("step", ["Gathering", "run", "_write_result"])
def test_whatever_error_ends_a_run_is_in_the_audit_log_and_comes_out(stage, step, error):
    stage.failing[step] = error
    with pytest.raises(type(error)):
        conduct(stage.parts)
    assert stage.ends == ["failed"]
    assert "finished" not in stage.phases


def test_an_audit_log_that_cannot_be_written_does_not_hide_what_ended_the_run(stage):
    stage.failing["Gathering"] = TooFewSitesError("too few")
    stage.parts.audit.error = OSError(28, "full")
    with pytest.raises(TooFewSitesError, match="too few"):
        conduct(stage.parts)


def test_a_kill_leaves_no_word(stage):
    stage.failing["run"] = SystemExit(0)
    with pytest.raises(SystemExit):
        conduct(stage.parts)
    assert stage.ends == []


def test_sites_that_cannot_be_told_of_the_end_change_nothing(stage):
    stage.failing["dismiss"] = TransportError("the SuperLink took no order")
    conduct(stage.parts)
    assert stage.phases[-1] == "finished"
    assert stage.ends == ["finished"]


def test_a_run_whose_rounds_are_done_writes_its_result_and_asks_nobody(stage):
    stage.history = tuple(summary(number) for number in (1, 2, 3))
    conduct(replace(stage.parts, resume=True))
    assert "Gathering" not in stage.steps
    assert "_write_result" in stage.steps


def test_a_run_with_a_round_to_go_gathers_again(stage):
    stage.history = (summary(1), summary(2))
    conduct(replace(stage.parts, resume=True))
    assert "Gathering" in stage.steps
    assert stage.parts.audit.events[0].next_round == 3


def test_what_is_replaced_is_not_vouched_for_meanwhile(tmp_path, monkeypatch, signed, federation):
    (tmp_path / RESULTS_NAME).write_text("{}")
    (tmp_path / ADAPTER_NAME).mkdir()
    (tmp_path / ADAPTER_NAME / "old").write_text("")

    class Model:
        def export(self, name, weights, basis, folder):
            assert not (tmp_path / RESULTS_NAME).exists()
            assert not folder.exists()
            raise OSError(28, "full")

    config = load_coordinator_config(federation.coordinator.config)
    report = SimpleNamespace(outcome=SimpleNamespace(model=SimpleNamespace(weights=None, basis=None)))
    with pytest.raises(OSError, match="full"):
        server.conduct._write_result(RunParts(signed, config, tmp_path, Silence(), Audit(), 3), Model(), report)
    assert not (tmp_path / RESULTS_NAME).exists()


# --- the base --------------------------------------------------------------------------------------------------------


def with_base(federation, folder):
    return load_coordinator_config(federation.coordinator.config).model_copy(update={"base": str(folder)})


def test_the_base_of_the_plan_is_found(federation, signed):
    assert find_plan_base(with_base(federation, federation.base), signed).resolve() == federation.base.resolve()


def test_no_base_and_another_base_are_one_sentence_each(federation, signed, tiny_base, tmp_path):
    with pytest.raises(ConfigError, match="no base model is set"):
        find_plan_base(load_coordinator_config(federation.coordinator.config).model_copy(update={"base": None}), signed)
    shutil.copytree(tiny_base, tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(IntegrityError, match="not the base model that the plan was signed with"):
        find_plan_base(with_base(federation, tmp_path / "other"), signed)


def test_versions_are_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(server.conduct, "_PACKAGES", ("numpy", "no-such-package-here"))
    assert dict(server.conduct._versions()) == {"numpy": np.__version__}
