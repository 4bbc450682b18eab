import math
from pathlib import Path

import numpy as np
import pytest

from common.base_model import load_base
from common.compute import ComputeConfig
from common.tasks.metrics import cross_entropy
from common.trainable import TrainableModel
from server.evaluation import PublicEvaluator
from tests.plans import make_plan

TEXTS = ["the patient had a rash", "no fever", "pain after drug treatment", "was well seen"]
LABELS = np.array([1, 0, 1, 0])
NOTHING = np.zeros(0)


def build(folder: Path, **adapter: object) -> TrainableModel:
    return TrainableModel(load_base(folder, "tiny", ComputeConfig()), make_plan(adapter=adapter), ComputeConfig())


def moved(model: TrainableModel, seed: int = 0) -> np.ndarray:
    return model.start + np.random.default_rng(seed).normal(0, 0.3, model.start.shape)


def test_the_start_predicts_nothing(tiny_base: Path) -> None:
    model = build(tiny_base)
    found = PublicEvaluator(model, model.prepare(TEXTS), LABELS).evaluate(model.start.astype(np.float64), NOTHING)
    assert found.loss == pytest.approx(math.log(2))
    assert found.metrics["auc"] == 0.5


@pytest.mark.parametrize("head_rounds", [0, 1])
def test_the_loss_is_that_of_the_loaded_values(tiny_base: Path, head_rounds: int) -> None:
    """Also when the run warms the head up, where features without the adapter are at hand and must not be used."""
    model = build(tiny_base, head_rounds=head_rounds)
    prepared, weights = model.prepare(TEXTS), moved(model)
    evaluator = PublicEvaluator(model, prepared, LABELS)
    found = evaluator.evaluate(weights, NOTHING)
    model.load(weights.astype(np.float32), NOTHING.astype(np.float32))
    assert found.loss == pytest.approx(cross_entropy(model.logits(prepared.at("full"), "full"), LABELS), rel=1e-6)


def test_a_model_whose_adapter_has_not_moved_takes_the_short_way_to_the_same_figures(tiny_base: Path) -> None:
    model = build(tiny_base, head_rounds=1)
    weights = model.start.astype(np.float64)
    weights[model.groups["head"]] = moved(model)[model.groups["head"]]
    short = PublicEvaluator(model, model.prepare(TEXTS), LABELS).evaluate(weights, NOTHING)
    long = PublicEvaluator(model, model.prepare(TEXTS, stages=("full",)), LABELS).evaluate(weights, NOTHING)
    assert short.loss == pytest.approx(long.loss, rel=1e-5)


def test_the_same_model_gives_the_same_figures_whatever_came_between(tiny_base: Path) -> None:
    model = build(tiny_base)
    evaluator = PublicEvaluator(model, model.prepare(TEXTS), LABELS)
    first = evaluator.evaluate(moved(model), NOTHING)
    evaluator.evaluate(moved(model, seed=1), NOTHING)
    assert evaluator.evaluate(moved(model), NOTHING) == first
