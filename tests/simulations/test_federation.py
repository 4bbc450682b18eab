"""Real sites, real training and the real coordinator, joined by the simulated network."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import LocalTrainer
from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import IntegrityError, UsageError
from common.messages import RoundOrder
from common.plan import Plan
from common.randomness import SecretSource
from common.records.records import build_records
from common.trainable import TrainableModel
from server.checkpoint import CHECKPOINT_NAME
from server.evaluation import PublicEvaluator
from server.state import RoundSummary
from simulations.federation import Federated, Setting, federate, hospital_sets
from simulations.network import Faults
from simulations.view import RoundFigures, SilentView
from tests.plans import make_plan
from tests.sources import SeededSource

NOTHING = np.zeros(0, dtype=np.float32)
ROWS = (
    ("the patient had a rash", 1),
    ("no fever", 0),
    ("mild pain", 0),
    ("severe reaction after drug", 1),
    ("well again", 0),
    ("rash after new drug", 1),
    ("seen again well", 0),
    ("severe rash noted", 1),
)
NOISELESS = {"noise_multiplier": 0.0, "sampling_rate": 1.0, "clip_norm": 0.4, "grid_bits": 24, "unit": "record"}
BAD = Faults(drop=0.15, delay=0.1, repeat=0.3, alter=0.1)


class StoppedError(BaseException):
    """Stands for SIGKILL."""


def records(start: int, end: int):
    texts, labels = zip(*ROWS[start:end], strict=True)
    return build_records(texts, labels, None)


def setting(folder: Path, base: Path, plan: Plan, **changes: object) -> Setting:
    """As many sites as the plan has, each with an equal share of the rows."""
    model = TrainableModel(load_base(base, "tiny", ComputeConfig()), plan, ComputeConfig())
    share = len(ROWS) // plan.sites
    names = [f"site-{number}" for number in range(plan.sites)]
    sets = [TrainingSet.of(records(n * share, (n + 1) * share), model, "record") for n in range(plan.sites)]
    public = records(0, 4)
    evaluator = PublicEvaluator(model, model.prepare(public.texts), public.labels)
    folder.mkdir(parents=True, exist_ok=True)
    return Setting(plan, model, hospital_sets(names, sets), evaluator, folder, **changes)


# --- books ---------------------------------------------------------------------------------------------------------


def test_a_perfect_network_charges_every_book_rounds_times_steps(tmp_path: Path, tiny_base: Path) -> None:
    plan = make_plan(rounds=3, privacy={"unit": "record"})
    federated = federate(setting(tmp_path, tiny_base, plan))
    assert federated.steps_charged == {"site-0": 6, "site-1": 6}
    assert [summary.survivors for summary in federated.outcome.rounds] == [2, 2, 2]
    assert (federated.traffic.orders, federated.traffic.replies) == (6, 6)
    assert 0 < federated.local_seconds <= federated.seconds


def test_repeats_are_trained_and_charged_once(tmp_path: Path, tiny_base: Path) -> None:
    trained: list[float] = []

    class Counting(SeededSource):
        def uniform(self, count: int) -> np.ndarray:
            trained.append(count)
            return super().uniform(count)

    plan = make_plan(rounds=3, privacy={"unit": "record"})
    counting = {"make_source": lambda: Counting(1)}
    quiet = federate(setting(tmp_path / "quiet", tiny_base, plan, **counting))
    drawn, trained[:] = len(trained), []
    loud = federate(setting(tmp_path / "loud", tiny_base, plan, faults=Faults(repeat=1.0), **counting))
    assert loud.traffic.faults["repeat order"] == 6
    assert loud.steps_charged == quiet.steps_charged == {"site-0": 6, "site-1": 6}
    assert len(trained) == drawn
    assert loud.outcome.model.weights.tobytes() == quiet.outcome.model.weights.tobytes()


def test_on_a_bad_network_a_book_holds_exactly_what_was_trained(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[LocalTrainer, int] = {}
    train = LocalTrainer.train

    def counted(self: LocalTrainer, order: RoundOrder) -> np.ndarray:
        trained[self] = trained.get(self, 0) + 1
        return train(self, order)

    monkeypatch.setattr(LocalTrainer, "train", counted)
    plan = make_plan(rounds=8, sites=4, privacy={"unit": "record"})
    federated = federate(setting(tmp_path, tiny_base, plan, faults=BAD, seed=5))
    assert sum(federated.traffic.faults.values()) > 8
    assert min(summary.survivors for summary in federated.outcome.rounds) < 4
    assert sorted(federated.steps_charged.values()) == sorted(2 * count for count in trained.values())
    assert max(federated.steps_charged.values()) <= plan.steps


# --- stopped and resumed -------------------------------------------------------------------------------------------


class SourceOfRound:
    """Randomness that depends on the site and the round alone, so that a resumed site draws what it would have."""

    def __init__(self, site: int) -> None:
        self.site, self.round_number = site, 0
        self._source = SeededSource(0)

    def begin(self, round_number: int) -> None:
        self._source = SeededSource(1000 * self.site + round_number)

    def uniform(self, count: int) -> np.ndarray:
        return self._source.uniform(count)


def reproducible(folder: Path, base: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Setting:
    """A setting whose sites draw from sources that start anew in each round."""
    made: list[SourceOfRound] = []

    def make_source() -> SourceOfRound:
        made.append(SourceOfRound(len(made)))
        return made[-1]

    train = LocalTrainer.train

    def seeded(self: LocalTrainer, order: RoundOrder) -> np.ndarray:
        source = self._step._sampler._source
        assert isinstance(source, SourceOfRound)
        source.begin(order.round_number)
        return train(self, order)

    monkeypatch.setattr(LocalTrainer, "train", seeded)
    return setting(folder, base, plan, make_source=make_source, **changes)


@pytest.mark.parametrize("faults", [Faults(), BAD], ids=["perfect", "bad"])
def test_a_run_stopped_after_every_round_ends_as_an_undisturbed_one(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    plan = make_plan(
        rounds=4, privacy={"unit": "record"}, server={"optimizer": "fedadam", "learning_rate": 0.1}, minimum_sites=1
    )

    def life(folder: Path, stop_after: int | None, resume: bool) -> Federated:
        def observer(summary: RoundSummary) -> None:
            if summary.round_number == stop_after:
                raise StoppedError

        with monkeypatch.context() as patch:
            made = reproducible(folder, tiny_base, plan, patch, faults=faults, seed=5)
            return federate(made, observer=observer, resume=resume)

    whole = life(tmp_path / "whole", None, resume=False)
    for stop_after in range(1, plan.rounds + 1):
        with pytest.raises(StoppedError):
            life(tmp_path / "stopped", stop_after, resume=stop_after > 1)
    resumed = life(tmp_path / "stopped", None, resume=True)
    assert resumed.steps_charged == whole.steps_charged
    assert resumed.outcome.model.weights.tobytes() == whole.outcome.model.weights.tobytes()
    assert [s.survivors for s in resumed.outcome.rounds] == [s.survivors for s in whole.outcome.rounds]


@pytest.mark.parametrize("moment", ["before training", "in training", "after training"])
def test_a_site_killed_within_a_round_is_charged_once_for_it(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    plan = make_plan(privacy={"unit": "record"})
    calls = []
    train, step = LocalTrainer.train, DpStep.noisy_gradient

    def killed_train(self: LocalTrainer, order: RoundOrder) -> np.ndarray:
        calls.append(order.round_number)
        if moment == "before training" and len(calls) == 2:
            raise StoppedError
        update = train(self, order)
        if moment == "after training" and len(calls) == 2:
            raise StoppedError
        return update

    def killed_step(self: DpStep, *arguments: object) -> np.ndarray:
        if moment == "in training" and len(calls) == 2:
            raise StoppedError
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalTrainer, "train", killed_train)
        patch.setattr(DpStep, "noisy_gradient", killed_step)
        with pytest.raises(StoppedError):
            federate(setting(tmp_path, tiny_base, plan))
    assert not (tmp_path / CHECKPOINT_NAME).exists()
    resumed = federate(setting(tmp_path, tiny_base, plan), resume=True)
    assert resumed.steps_charged == {"site-0": 4, "site-1": 4}
    assert [summary.survivors for summary in resumed.outcome.rounds] == [2, 2]


def test_killed_while_the_books_are_begun_the_run_can_still_be_resumed(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulations import federation

    plan = make_plan(privacy={"unit": "record"})
    made, charges = setting(tmp_path, tiny_base, plan), federation.Charges
    opened = []

    def killed(*arguments: object, **options: object) -> object:
        opened.append(arguments)
        if len(opened) == 2:
            raise StoppedError
        return charges(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(federation, "Charges", killed)
        with pytest.raises(StoppedError):
            federate(made)
    assert federate(made, resume=True).steps_charged == {"site-0": 4, "site-1": 4}


def test_a_book_that_was_lost_stops_the_resumed_run(tmp_path: Path, tiny_base: Path) -> None:
    plan = make_plan(privacy={"unit": "record"})
    made = setting(tmp_path, tiny_base, plan)
    federate(made)
    (tmp_path / "sites" / "site-1" / "charges.book").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        federate(made, resume=True)


def test_a_whole_site_that_was_lost_stops_the_resumed_run(tmp_path: Path, tiny_base: Path) -> None:
    plan = make_plan(privacy={"unit": "record"})
    made = setting(tmp_path, tiny_base, plan)
    federate(made)
    shutil.rmtree(tmp_path / "sites" / "site-1")
    with pytest.raises(IntegrityError, match="is missing"):
        federate(made, resume=True)


def test_a_folder_with_a_run_is_not_started_over(tmp_path: Path, tiny_base: Path) -> None:
    made = setting(tmp_path, tiny_base, make_plan(privacy={"unit": "record"}))
    federate(made)
    with pytest.raises(UsageError, match="already holds"):
        federate(made)


# --- against other ways to compute the same --------------------------------------------------------------------------


def test_without_noise_one_hospital_is_plain_training(tmp_path: Path, tiny_base: Path) -> None:
    """σ = 0, q = 1, no momentum: the run is full-batch gradient descent with per-record clipping."""
    plan = make_plan(
        rounds=3, sites=1, privacy={**NOISELESS, "divisor": 8.0}, optimizer={"momentum": 0.0}, local_steps=2
    )
    made = setting(tmp_path, tiny_base, plan)
    outcome = federate(made).outcome
    expected = descend(made, tuple(made.hospitals.values()), plan)
    assert np.abs(expected - made.model.start).max() > 0.01
    np.testing.assert_allclose(outcome.model.weights, expected, atol=2e-6)


def test_without_noise_two_hospitals_with_one_step_are_pooled_training(tmp_path: Path, tiny_base: Path) -> None:
    plan = make_plan(
        rounds=4, sites=2, privacy={**NOISELESS, "divisor": 4.0}, optimizer={"momentum": 0.0}, local_steps=1
    )
    made = setting(tmp_path, tiny_base, plan)
    outcome = federate(made).outcome
    np.testing.assert_allclose(outcome.model.weights, descend(made, tuple(made.hospitals.values()), plan), atol=2e-6)


def descend(made: Setting, sets: tuple[TrainingSet, ...], plan: Plan) -> np.ndarray:
    """Gradient descent on all rows together, one row at a time, with torch's own backward pass."""
    model, weights = made.model, made.model.start.astype(np.float64)
    for _ in range(plan.steps):
        model.load(weights.astype(np.float32), NOTHING)
        total = np.zeros_like(weights)
        for data in sets:
            for row in range(len(data.labels)):
                gradient = row_gradient(model, data, row)
                total += gradient * min(1.0, plan.privacy.clip_norm / np.linalg.norm(gradient))
        weights = weights - plan.optimizer.learning_rate * total / (plan.privacy.divisor * len(sets))
    return weights


def row_gradient(model: TrainableModel, data: TrainingSet, row: int) -> np.ndarray:
    (batch,) = data.prepared.at("full").compact_batches(np.array([row]), 1000)
    loss = torch.nn.functional.cross_entropy(model.module(batch.values, batch.mask), torch.tensor([data.labels[row]]))
    gradients = torch.autograd.grad(loss, model.parameters("full"))
    return np.concatenate([gradient.numpy().ravel() for gradient in gradients]).astype(np.float64)


@pytest.mark.parametrize("method", ["lora-b", "lora"])
def test_a_refresh_keeps_the_product(
    tmp_path: Path, tiny_base: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(rounds=2, adapter={"method": method, "svd_refresh_rounds": 1}, privacy={"unit": "record"})
    made = setting(tmp_path, tiny_base, plan)
    first_basis, seen = made.model.basis(), []
    from simulations import federation

    refactor = federation.refactor

    def watched(weights: np.ndarray, basis: np.ndarray, *specs: object) -> tuple[np.ndarray, np.ndarray]:
        after = refactor(weights, basis, *specs)
        seen.append((logits_of(made, weights, basis), logits_of(made, *after), basis, after))
        return after

    monkeypatch.setattr(federation, "refactor", watched)
    outcome = federate(made).outcome
    assert len(seen) == 1  # after round 1; after the last one it would serve nobody
    before, after, given, factors = seen[0]
    assert np.abs(before - logits_of(made, made.model.start, first_basis)).max() > 1e-3
    np.testing.assert_allclose(after, before, atol=1e-4)
    np.testing.assert_array_equal(given, first_basis)
    assert outcome.model.basis.shape == first_basis.shape
    if method == "lora-b":
        assert np.abs(factors[1] - first_basis).max() > 1e-3
        np.testing.assert_array_equal(outcome.model.basis, factors[1])


def logits_of(made: Setting, weights: np.ndarray, basis: np.ndarray) -> np.ndarray:
    made.model.load(weights.astype(np.float32), basis.astype(np.float32))
    features = made.hospitals["site-0"].prepared.at("full")
    return made.model.logits(features, "full").copy()


# --- one machine ---------------------------------------------------------------------------------------------------


def test_eight_hospitals_share_one_encoder(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(sites=8, rounds=1, privacy={"unit": "record"})
    made = setting(tmp_path, tiny_base, plan)
    used: list[set[int]] = []
    train = LocalTrainer.train

    def watched(self: LocalTrainer, order: RoundOrder) -> np.ndarray:
        used.append({tensor.data_ptr() for tensor in self._model.peft.parameters()})
        return train(self, order)

    monkeypatch.setattr(LocalTrainer, "train", watched)
    federate(made)
    assert len(used) == 8
    assert all(pointers == used[0] for pointers in used)


def test_a_site_draws_from_the_operating_system_unless_a_test_says_otherwise(tmp_path: Path, tiny_base: Path) -> None:
    made = setting(tmp_path, tiny_base, make_plan(privacy={"unit": "record"}))
    assert made.make_source is SecretSource
    one = federate(replace(made, folder=fresh(tmp_path / "one"))).outcome.model.weights
    other = federate(replace(made, folder=fresh(tmp_path / "other"))).outcome.model.weights
    assert (one != other).mean() > 0.99


def fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_view_is_told_of_each_site_in_turn(tmp_path: Path, tiny_base: Path) -> None:
    class Recorder(SilentView):
        def __init__(self) -> None:
            self.events: list[str] = []

        def site_started(self, site: str) -> None:
            self.events.append(f"{site} started")

        def site_finished(self, site: str) -> None:
            self.events.append(f"{site} finished")

        def round_finished(self, figures: RoundFigures) -> None:
            raise AssertionError("rounds are told to the observer")

    view, rounds = Recorder(), []
    made = setting(tmp_path, tiny_base, make_plan(rounds=1, privacy={"unit": "record"}))
    federate(made, view, lambda summary: rounds.append(summary.round_number))
    assert view.events == ["site-0 started", "site-0 finished", "site-1 started", "site-1 finished"]
    assert rounds == [1]
