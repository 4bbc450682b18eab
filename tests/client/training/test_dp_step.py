"""One DP step against a plain loop written another way."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client.training import dp_step
from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import recording
from client.training.per_example import PerExampleGradients, loop_gradients
from common.base_model import load_base
from common.compute import ComputeConfig
from common.plan import Plan
from common.privacy.plan import PrivacyPlan
from common.records.records import Records, build_records
from common.trainable import TrainableModel
from tests.plans import make_plan
from tests.sources import SeededSource

PATIENTS = ["a", "a", "b", "c", "c", "c", "d"]
TEXTS = [
    "the patient had a rash",
    "no fever",
    "pain after drug",
    "mild rash resolved",
    "history of pain",
    "new drug",
    "well",
]
LABELS = [1, 0, 1, 1, 0, 0, 0]


def records() -> Records:
    return build_records(TEXTS, LABELS, PATIENTS)


def build(folder: Path, plan: Plan) -> tuple[TrainableModel, TrainingSet, PrivacyPlan]:
    compute = ComputeConfig(tokens_per_batch=64)
    model = TrainableModel(load_base(folder, "tiny", compute), plan, compute)
    generator = np.random.default_rng(0)
    model.load(model.start + generator.normal(0, 0.3, model.start.shape).astype(np.float32), np.zeros(0, np.float32))
    data = TrainingSet.of(records(), model, plan.privacy.unit)
    return model, data, PrivacyPlan.from_terms(plan.privacy, plan.steps)


def oracle(model: TrainableModel, data: TrainingSet, plan: PrivacyPlan, drawn: list[int]) -> np.ndarray:
    """Unit by unit, record by record: autograd, add up, clip, cut the fraction off, add up. In Python's own loops."""
    total = np.zeros(model.spec.dimension)
    features, parameters = data.prepared.at("full"), model.parameters("full")
    for unit in drawn:
        gradient = np.zeros(model.spec.dimension)
        for row in np.flatnonzero(data.units == unit):
            (batch,) = features.compact_batches(np.array([row]), 1000)
            labels = torch.from_numpy(data.labels[[row]])
            gradient += loop_gradients(model.module, batch, labels, parameters, pooled=False)[0].numpy().astype(float)
        norm = float(np.sqrt((gradient**2).sum()))
        total += np.trunc(gradient * min(1.0, plan.clip_norm / norm) / plan.grid_step)
    return total


@pytest.mark.parametrize("unit", ["patient", "record"])
@pytest.mark.parametrize("clip_norm", [0.05, 100.0])
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
def test_clipped_sum_is_that_of_a_plain_loop(
    tiny_base: Path, unit: str, clip_norm: float, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dp_step, "_CHUNK_BYTES", chunk_bytes)
    plan = make_plan(privacy={"unit": unit, "clip_norm": clip_norm, "grid_bits": 20})
    model, data, mechanism = build(tiny_base, plan)
    drawn = np.array([0, 2, 3])
    with recording(model) as gradients:
        total = DpStep(mechanism, model, data, SeededSource(1)).clipped_sum(drawn, gradients, "full")
    expected = oracle(model, data, mechanism, drawn.tolist())
    assert total.dtype == np.int64
    assert np.abs(total).max() > 1000
    # float32 sums differ in their last bits, which may move a value across one grid line or a few
    assert np.abs(total - expected).max() <= 3 + 1e-5 * np.abs(expected).max() * (20 if clip_norm > 1 else 1)


def test_the_divisor_is_the_plans_whatever_was_drawn(tiny_base: Path) -> None:
    """Planted fault 2 (dividing by the actual batch) turns this red."""
    plan = make_plan(privacy={"noise_multiplier": 0.0, "sampling_rate": 0.4, "divisor": 10.0})
    model, data, mechanism = build(tiny_base, plan)
    sizes = set()
    for seed in range(12):
        drawn = dp_step.PoissonSampler(0.4, data.unit_count, SeededSource(seed)).draw()
        with recording(model) as gradients:
            mean = DpStep(mechanism, model, data, SeededSource(seed)).noisy_gradient(gradients, "full")
            total = DpStep(mechanism, model, data, SeededSource(0)).clipped_sum(drawn, gradients, "full")
        assert np.allclose(mean, total * mechanism.grid_step / 10.0, rtol=1e-12, atol=0)
        sizes.add(len(drawn))
    assert len(sizes) > 2


def test_an_empty_draw_is_noise_alone(tiny_base: Path) -> None:
    plan = make_plan(privacy={"sampling_rate": 1e-9, "noise_multiplier": 1.0})
    model, data, mechanism = build(tiny_base, plan)
    with recording(model) as gradients:
        mean = DpStep(mechanism, model, data, SeededSource(1)).noisy_gradient(gradients, "full")
    grid = mean * mechanism.divisor / mechanism.grid_step
    assert np.allclose(grid, np.rint(grid), atol=1e-6)
    assert 0.5 < np.std(mean) * mechanism.divisor / mechanism.clip_norm < 1.6


def test_noise_is_there_and_of_the_plans_scale(tiny_base: Path) -> None:
    """Planted fault 1 (no noise) turns this red: twenty steps at one draw differ, by the plan's standard deviation."""
    plan = make_plan(privacy={"sampling_rate": 1.0, "noise_multiplier": 2.0})
    model, data, mechanism = build(tiny_base, plan)
    step = DpStep(mechanism, model, data, SeededSource(7))
    with recording(model) as gradients:
        samples = np.stack([step.noisy_gradient(gradients, "full") for _ in range(20)]) * mechanism.divisor
    spread = float(np.sqrt(samples.var(axis=0, ddof=1).mean()))
    assert abs(spread / (2.0 * mechanism.clip_norm) - 1) < 0.1


def test_a_unit_with_nan_counts_as_zero(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, mechanism = build(tiny_base, make_plan(privacy={"unit": "record"}))
    right = PerExampleGradients.__call__

    def poisoned(self: PerExampleGradients, batch: object, *args: object, **kwargs: object) -> torch.Tensor:
        result = right(self, batch, *args, **kwargs)
        result[batch.rows == 2] = float("nan")
        return result

    step = DpStep(mechanism, model, data, SeededSource(1))
    with recording(model) as gradients:
        without = step.clipped_sum(np.array([0, 1, 3]), gradients, "full")
        monkeypatch.setattr(PerExampleGradients, "__call__", poisoned)
        assert np.array_equal(step.clipped_sum(np.array([0, 1, 2, 3]), gradients, "full"), without)


def test_a_training_set_prints_nothing(tiny_base: Path) -> None:
    _, data, _ = build(tiny_base, make_plan())
    assert "rash" not in repr(data)
    assert "array" not in repr(data)
