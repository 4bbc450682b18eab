"""A round at a hospital, and a whole σ = 0 run against federated averaging in plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client.training.dp_step import TrainingSet
from client.training.loop import LocalTrainer
from client.training.per_example import loop_gradients
from common.base_model import load_base
from common.compute import ComputeConfig
from common.messages import RoundOrder
from common.plan import OptimizerConfig, Plan
from common.records.records import build_records
from common.schedule import rate_factor
from common.trainable import TrainableModel
from tests.plans import make_plan
from tests.sources import SeededSource

SITES = {
    "one": (["the patient had a rash", "no fever", "mild pain"], [1, 0, 0]),
    "two": (["severe reaction after drug", "well again"], [1, 0]),
}
NOTHING = np.zeros(0, dtype=np.float32)
NOISELESS = {
    "noise_multiplier": 0.0,
    "sampling_rate": 1.0,
    "divisor": 3.0,
    "clip_norm": 0.4,
    "grid_bits": 24,
    "unit": "record",
}


def trainers(folder: Path, plan: Plan) -> tuple[TrainableModel, dict[str, LocalTrainer]]:
    model = TrainableModel(load_base(folder, "tiny", ComputeConfig()), plan, ComputeConfig())
    made = {}
    for name, (texts, labels) in SITES.items():
        data = TrainingSet.of(build_records(texts, labels, None), model, "record")
        made[name] = LocalTrainer(plan, model, data, SeededSource(1))
    return model, made


def loop_update(model: TrainableModel, plan: Plan, site: str, weights: np.ndarray, first: int) -> np.ndarray:
    """K steps of clipped full-batch gradient descent with momentum at one site, one record at a time."""
    texts, labels = SITES[site]
    features = model.prepare(texts).at("full")
    current, velocity = weights.astype(np.float64), np.zeros(len(weights))
    rates = np.full(len(weights), plan.optimizer.learning_rate)
    rates[model.groups["head"]] = plan.optimizer.head_learning_rate or plan.optimizer.learning_rate
    for step in range(first, first + plan.local_steps):
        model.load(current.astype(np.float32), NOTHING)
        total = np.zeros(len(weights))
        for row in range(len(texts)):
            (batch,) = features.compact_batches(np.array([row]), 1000)
            gradient = loop_gradients(
                model.module, batch, torch.tensor([labels[row]]), model.parameters("full"), pooled=False
            )
            gradient = gradient[0].numpy().astype(np.float64)
            total += gradient * min(1.0, plan.privacy.clip_norm / np.linalg.norm(gradient))
        velocity = plan.optimizer.momentum * velocity + total / plan.privacy.divisor
        current = current - rates * rate_factor(plan.optimizer, step, plan.steps) * velocity
    return current - weights


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_without_noise_a_run_is_federated_averaging_in_plain_loops(tiny_base: Path, schedule: str) -> None:
    plan = make_plan(
        privacy=NOISELESS, optimizer={"schedule": schedule, "warmup_steps": 1, "head_learning_rate": 0.2}, rounds=3
    )
    model, made = trainers(tiny_base, plan)
    ours, loop = model.start.copy(), model.start.astype(np.float64)
    for number in range(1, plan.rounds + 1):
        updates = [trainer.train(RoundOrder(plan.digest, number, ours, NOTHING)) for trainer in made.values()]
        ours = ours + np.mean(updates, axis=0)
        first = (number - 1) * plan.local_steps
        loop = loop + np.mean(
            [loop_update(model, plan, site, loop.astype(np.float32), first) for site in SITES], axis=0
        )
    assert np.abs(loop - model.start).max() > 0.01
    assert np.allclose(ours, loop, atol=2e-5)


def test_a_round_depends_on_its_order_alone(tiny_base: Path) -> None:
    plan = make_plan(privacy=NOISELESS, optimizer={"rule": "adam"})
    model, made = trainers(tiny_base, plan)
    order = RoundOrder(plan.digest, 1, model.start, NOTHING)
    first = made["one"].train(order)
    made["two"].train(RoundOrder(plan.digest, 2, model.start + 1, NOTHING))
    assert np.array_equal(made["one"].train(order), first)


def test_head_rounds_move_the_head_alone(tiny_base: Path) -> None:
    plan = make_plan(adapter={"head_rounds": 1})
    model, made = trainers(tiny_base, plan)
    update = made["one"].train(RoundOrder(plan.digest, 1, model.start, NOTHING))
    assert not update[model.groups["adapter"]].any()
    assert update[model.groups["head"]].all()
    second = made["one"].train(RoundOrder(plan.digest, 2, model.start + update, NOTHING))
    assert second.all()


def test_an_error_within_a_round_leaves_nothing_behind(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(privacy=NOISELESS)
    model, made = trainers(tiny_base, plan)
    order = RoundOrder(plan.digest, 1, model.start, NOTHING)
    expected = made["one"].train(order)
    with monkeypatch.context() as patch:
        patch.setattr(LocalTrainer, "_move", _killed)
        with pytest.raises(KeyboardInterrupt):
            made["one"].train(order)
    assert np.array_equal(made["one"].train(order), expected)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_schedule_by_hand(schedule: str, expected: list[float]) -> None:
    optimizer = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2)
    assert [round(rate_factor(optimizer, step, 6), 4) for step in range(6)] == expected
