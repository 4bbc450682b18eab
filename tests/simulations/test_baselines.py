from pathlib import Path

import numpy as np
import pytest
import torch

from client.training.dp_step import TrainingSet
from common.base_model import load_base
from common.compute import ComputeConfig
from common.identity import public_name
from common.privacy.plan import PrivacyPlan
from common.randomness import SecretSource
from common.records.records import build_records
from common.trainable import TrainableModel
from server.evaluation import PublicEvaluator
from simulations.baselines import _epochs, train_with_privacy, train_without_privacy
from simulations.federation import Setting, federate
from simulations.scenario import BaselineConfig
from simulations.world import draw_identities
from tests.plans import make_plan

TEXTS = ["the patient had a rash", "no fever", "mild pain", "severe rash after drug", "well again", "new rash noted"]
LABELS = [1, 0, 0, 1, 0, 1]
NOTHING = np.zeros(0, dtype=np.float32)


def trained(base: Path, seed: int, adapter: dict | None = None, **changes: object) -> tuple[TrainableModel, np.ndarray]:
    plan = make_plan(privacy={"unit": "record"}, adapter=adapter or {})
    model = TrainableModel(load_base(base, "tiny", ComputeConfig()), plan, ComputeConfig())
    data = TrainingSet.of(build_records(TEXTS, LABELS, None), model, "record")
    config = BaselineConfig(
        **{"epochs": 6, "batch_rows": 2, "learning_rate": 0.05, "head_learning_rate": 0.05} | changes
    )
    return model, train_without_privacy(model, data, config, seed)


def loss(model: TrainableModel, weights: np.ndarray) -> float:
    return PublicEvaluator(model, model.prepare(TEXTS), np.array(LABELS)).evaluate(weights, NOTHING).loss


@pytest.mark.parametrize(
    "adapter", [{}, {"method": "lora"}, {"method": "head"}, {"method": "bias"}, {"head_rounds": 1}]
)
def test_training_lowers_the_loss_and_moves_all_that_is_trained(tiny_base: Path, adapter: dict) -> None:
    model, weights = trained(tiny_base, 1, adapter)
    assert loss(model, weights) < 0.8 * loss(model, model.start)
    for name, part in model.groups.items():
        assert np.abs(weights[part] - model.start[part]).max() > 1e-3, name


def test_the_seed_decides_and_nothing_else(tiny_base: Path) -> None:
    _, one = trained(tiny_base, 1)
    torch.rand(7)  # the global generator has no say
    _, again = trained(tiny_base, 1)
    _, other = trained(tiny_base, 2)
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


def test_training_starts_from_the_models_start_and_not_from_what_is_loaded(tiny_base: Path) -> None:
    model, first = trained(tiny_base, 1)
    model.load(np.full(len(first), 0.3, dtype=np.float32), NOTHING)
    data = TrainingSet.of(build_records(TEXTS, LABELS, None), model, "record")
    config = BaselineConfig(epochs=6, batch_rows=2, learning_rate=0.05, head_learning_rate=0.05)
    assert train_without_privacy(model, data, config, 1).tobytes() == first.tobytes()
    assert model.read().tobytes() == first.tobytes()


def test_one_step_is_adamw_by_hand(tiny_base: Path) -> None:
    """AdamW's first step is the rate times the gradient's sign, whatever the gradient's size."""
    model, weights = trained(tiny_base, 1, {"method": "head"}, epochs=1, batch_rows=6, head_learning_rate=0.01)
    np.testing.assert_allclose(np.abs(weights - model.start)[:-2], 0.01, rtol=1e-3)
    assert not weights[-2:].any()  # as many rows of one label as of the other: the bias has no gradient


def test_every_row_is_in_every_epoch_once_and_the_last_batch_may_be_short() -> None:
    batches = _epochs(5, BaselineConfig(epochs=2, batch_rows=2), 1)
    assert [len(batch) for batch in batches] == [2, 2, 1, 2, 2, 1]
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == [0, 1, 2, 3, 4]
    assert first.tolist() != second.tolist()


def test_private_training_in_one_place_is_what_mode_distributed_does(tiny_base: Path, tmp_path: Path) -> None:
    """The plain loop and the whole machinery of rounds, masks and server steps: the same model, without noise."""
    roster = draw_identities(("a", "b", "c"))
    plan = make_plan(
        mode="distributed",
        rounds=5,
        local_steps=1,
        sites=3,
        roster={name: public_name(identity) for name, identity in roster.items()},
        adapter={"head_rounds": 2},
        privacy={"unit": "record", "noise_multiplier": 0.0, "sampling_rate": 1.0, "divisor": 6.0, "grid_bits": 20},
        optimizer={"rule": "adam", "schedule": "linear", "warmup_steps": 1, "head_learning_rate": 0.2},
        secure_aggregation={"masked": True, "tolerated_colluders": 0},
    )
    model = TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), plan, ComputeConfig())
    parts = [TrainingSet.of(build_records(TEXTS[i::3], LABELS[i::3], None), model, "record") for i in range(3)]
    evaluator = PublicEvaluator(model, model.prepare(TEXTS), np.array(LABELS))
    hospitals = dict(zip(roster, parts, strict=True))
    result = federate(Setting(plan, model, hospitals, evaluator, tmp_path, identities=roster)).outcome.model
    pooled = TrainingSet.of(build_records(TEXTS, LABELS, None), model, "record")
    alone = train_with_privacy(model, pooled, PrivacyPlan.from_terms(plan.privacy, plan.steps), SecretSource())
    assert np.abs(result.weights - model.start).max() > 0.1
    np.testing.assert_allclose(result.weights, alone, atol=2e-4)
