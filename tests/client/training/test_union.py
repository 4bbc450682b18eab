"""One hospital's part of a step of the union, on the tiny model."""

from pathlib import Path

import numpy as np
import pytest

from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import recording
from client.training.union import UnionTrainer
from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import ConfigError
from common.messages import RoundOrder
from common.plan import Plan
from common.privacy.mechanism import mechanism_of, sum_bound
from common.records.records import build_records
from common.trainable import TrainableModel
from tests.plans import make_plan
from tests.sources import SeededSource

NOTHING = np.zeros(0, dtype=np.float32)
TEXTS, LABELS = ["the patient had a rash", "no fever", "mild pain"], [1, 0, 0]


def union_plan(**changes) -> Plan:
    terms = {"masked": True, "tolerated_dropouts": 1, "tolerated_colluders": 0}
    roster = {name: digit * 64 for name, digit in zip("abc", "123", strict=True)}
    privacy = {"noise_multiplier": 0.0, "sampling_rate": 1.0, "unit": "record"} | changes.pop("privacy", {})
    plan = {"mode": "distributed", "local_steps": 1, "sites": 3, "roster": roster, "secure_aggregation": terms}
    return make_plan(**{**plan, "privacy": privacy, **changes})


def build(folder: Path, plan: Plan, texts=TEXTS, labels=LABELS) -> tuple[TrainableModel, TrainingSet, UnionTrainer]:
    model = TrainableModel(load_base(folder, "tiny", ComputeConfig()), plan, ComputeConfig())
    data = TrainingSet.of(build_records(texts, labels, None), model, "record")
    return model, data, UnionTrainer(plan, model, data, SeededSource(1))


def order(plan: Plan, weights: np.ndarray, number: int = 1) -> RoundOrder:
    return RoundOrder(plan.digest, number, weights, NOTHING)


def test_without_noise_a_share_is_the_clipped_sum_at_the_orders_values(tiny_base: Path) -> None:
    plan = union_plan()
    model, data, trainer = build(tiny_base, plan)
    weights = model.start + np.float32(0.25)
    model.load(model.start, NOTHING)  # whatever was loaded before does not matter
    share = trainer.train(order(plan, weights))
    model.load(weights, NOTHING)
    with recording(model) as gradients:
        expected = DpStep(mechanism_of(plan), model, data, SeededSource(9)).clipped_sum(np.arange(3), gradients, "full")
    assert share.dtype == np.int64
    np.testing.assert_array_equal(share, expected)
    assert np.abs(share).max() > 1000


def test_the_noise_of_a_share_has_the_variance_of_a_share(tiny_base: Path) -> None:
    plan = union_plan(privacy={"noise_multiplier": 4.0, "sampling_rate": 1e-9})
    model, _, trainer = build(tiny_base, plan)
    draws = np.concatenate([trainer.train(order(plan, model.start)) for _ in range(30)])
    stated = 4.0**2 * 2.0**32 / 2  # sigma^2 C^2 / (n - d - c), in squared grid steps
    assert 0.85 < np.square(draws).mean() / stated < 1.15
    assert np.abs(draws).max() > 65536


def test_what_a_round_does_not_train_is_exactly_zero(tiny_base: Path) -> None:
    plan = union_plan(adapter={"head_rounds": 1}, privacy={"noise_multiplier": 1.0})
    model, _, trainer = build(tiny_base, plan)
    first = trainer.train(order(plan, model.start, 1))
    assert not first[model.groups["adapter"]].any()
    assert first[model.groups["head"]].all()
    assert trainer.train(order(plan, model.start, 2))[model.groups["adapter"]].all()


def test_nothing_outlives_a_round(tiny_base: Path) -> None:
    plan = union_plan(optimizer={"momentum": 0.9})
    model, _, trainer = build(tiny_base, plan)
    first = trainer.train(order(plan, model.start))
    trainer.train(order(plan, model.start + 1))
    np.testing.assert_array_equal(trainer.train(order(plan, model.start)), first)
    assert not model.module.training


def test_a_sum_beyond_the_bound_is_clamped(tiny_base: Path) -> None:
    """Four hundred equal records all pull the same way, ten times as many as the divisor stands for."""
    plan = union_plan(privacy={"grid_bits": 24, "divisor": 40.0})
    mechanism = mechanism_of(plan)
    bound = sum_bound(mechanism, plan.sites)
    model, data, trainer = build(tiny_base, plan, TEXTS[:1] * 400, [1] * 400)
    model.load(model.start, NOTHING)
    with recording(model) as gradients:
        free = DpStep(mechanism, model, data, SeededSource(9)).clipped_sum(np.arange(400), gradients, "full")
    assert np.abs(free).max() > bound
    np.testing.assert_array_equal(trainer.train(order(plan, model.start)), np.clip(free, -bound, bound))


def test_a_plan_whose_sums_could_wrap_is_refused_before_any_record_is_read(tiny_base: Path) -> None:
    model, data, _ = build(tiny_base, union_plan())
    with pytest.raises(ConfigError, match="could wrap round"):
        UnionTrainer(union_plan(privacy={"grid_bits": 24, "divisor": 50.0}), model, data, SeededSource(1))
