"""The validation set decides; test and training figures stand beside it under names of their own."""

from pathlib import Path

import numpy as np
import pytest

from client.training.dp_step import TrainingSet
from common.base_model import load_base
from common.compute import ComputeConfig
from common.records.records import build_records
from common.trainable import TrainableModel
from server.evaluation import PublicEvaluator
from simulations.measure import WatchedEvaluator
from tests.plans import make_plan

VALIDATION = (["the patient had a rash", "no fever", "mild pain"], [1, 0, 0])
TEST = (["severe reaction after drug", "well again"], [1, 0])
TRAINING = (["rash after new drug", "seen again well", "severe rash noted", "no pain"], [1, 0, 1, 0])
NOTHING = np.zeros(0, dtype=np.float32)


@pytest.fixture
def model(tiny_base: Path) -> TrainableModel:
    plan = make_plan(privacy={"unit": "record"})
    return TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), plan, ComputeConfig())


def public(model: TrainableModel, rows: tuple[list[str], list[int]]) -> PublicEvaluator:
    return PublicEvaluator(model, model.prepare(rows[0]), np.array(rows[1]))


def watched(model: TrainableModel, **changes: object) -> WatchedEvaluator:
    return WatchedEvaluator(model, public(model, VALIDATION), public(model, TEST), **changes)


def moved(model: TrainableModel) -> np.ndarray:
    return model.start + np.random.default_rng(0).normal(0, 0.3, model.start.shape).astype(np.float32)


def training(model: TrainableModel) -> TrainingSet:
    return TrainingSet.of(build_records(*TRAINING, None), model, "record")


def test_loss_and_plain_names_are_those_of_the_validation_set(model: TrainableModel) -> None:
    weights = moved(model)
    seen = watched(model, training=(training(model),), training_rows=4).evaluate(weights, NOTHING)
    alone = public(model, VALIDATION).evaluate(weights, NOTHING)
    assert seen.loss == alone.loss
    assert {name: seen.metrics[name] for name in alone.metrics} == dict(alone.metrics)
    beside = public(model, TEST).evaluate(weights, NOTHING)
    assert seen.metrics["test_loss"] == beside.loss != alone.loss
    assert {f"test_{name}": value for name, value in beside.metrics.items()}.items() <= seen.metrics.items()
    others = set(seen.metrics) - set(alone.metrics)
    assert all(name.startswith(("test_", "train_")) for name in others)


def test_other_test_rows_change_neither_loss_nor_plain_names(model: TrainableModel) -> None:
    weights = moved(model)
    flipped = (TEST[0], [1 - label for label in TEST[1]])
    one = watched(model).evaluate(weights, NOTHING)
    other = WatchedEvaluator(model, public(model, VALIDATION), public(model, flipped)).evaluate(weights, NOTHING)
    assert one.metrics["test_loss"] != other.metrics["test_loss"]
    assert one.loss == other.loss
    assert one.metrics["auc"] == other.metrics["auc"]


def test_without_test_and_training_only_the_validation_set_is_looked_at(model: TrainableModel) -> None:
    seen = watched(model, test_every_round=False).evaluate(moved(model), NOTHING)
    assert seen == public(model, VALIDATION).evaluate(moved(model), NOTHING)


def test_the_training_loss_is_that_of_the_evaluated_model(model: TrainableModel) -> None:
    weights = moved(model)
    evaluator = watched(model, training=(training(model), training(model)), training_rows=100)
    expected = public(model, TRAINING).evaluate(weights, NOTHING).loss
    model.load(model.start, NOTHING)
    assert evaluator.evaluate(weights, NOTHING).metrics["train_loss"] == pytest.approx(expected, rel=1e-5)
    start = evaluator.evaluate(model.start, NOTHING).metrics["train_loss"]
    assert start == pytest.approx(np.log(2), rel=1e-6)  # a head of zeros gives even odds


def test_so_many_training_rows_and_always_the_same(model: TrainableModel) -> None:
    weights = moved(model)
    evaluator = watched(model, training=(training(model),), training_rows=1)
    each = [
        public(model, ([text], [label])).evaluate(weights, NOTHING).loss for text, label in zip(*TRAINING, strict=True)
    ]
    one = evaluator.evaluate(weights, NOTHING).metrics["train_loss"]
    assert min(abs(one - loss) for loss in each) < 1e-5
    assert evaluator.evaluate(weights, NOTHING).metrics["train_loss"] == one
