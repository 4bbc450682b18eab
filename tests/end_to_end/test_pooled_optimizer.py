"""The coordinator's rule in mode distributed is the optimizer that a pooled run would use, rates and all."""

import numpy as np
import pytest

from client.training.loop import build_optimizer, set_gradient, set_rates
from common.base_model import load_base
from common.compute import ComputeConfig
from common.trainable import TrainableModel
from server.aggregation.choice import build_aggregator
from tests.plans import make_plan

NOWHERE = np.zeros(0, dtype=np.float32)
OPTIMIZERS = [
    {"rule": "sgd", "momentum": 0.9, "schedule": "linear", "warmup_steps": 3},
    {"rule": "adam", "momentum": 0.9, "second_moment": 0.99, "schedule": "cosine"},
]


def distributed_plan(**optimizer):
    roster = {name: digit * 64 for name, digit in zip("abc", "123", strict=True)}
    terms = {"masked": True, "tolerated_dropouts": 0, "tolerated_colluders": 1}
    return make_plan(
        mode="distributed",
        rounds=8,
        local_steps=1,
        sites=3,
        roster=roster,
        secure_aggregation=terms,
        optimizer={"learning_rate": 0.1, "head_learning_rate": 0.5, **optimizer},
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda table: table["rule"])
def test_a_run_takes_the_steps_of_a_pooled_run(tiny_base, optimizer):
    plan = distributed_plan(**optimizer)
    model = TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), plan, ComputeConfig())
    weights = model.start.astype(np.float64)
    moments = build_aggregator(plan, model.groups, 1).initial(len(weights))
    model.load(model.start, NOWHERE)
    pooled = build_optimizer(plan.optimizer, model, "full")
    for step, gradient in enumerate(np.random.default_rng(0).normal(0, 1, (plan.rounds, len(weights)))):
        set_rates(pooled, plan.optimizer, step, plan.steps)
        set_gradient(model.parameters("full"), gradient)
        pooled.step()
        weights, moments = build_aggregator(plan, model.groups, step + 1).apply(weights, gradient, 3, moments)
        np.testing.assert_allclose(weights, model.read(), rtol=0, atol=2e-6)
    assert np.abs(weights - model.start).min(initial=np.inf) > 1e-5  # every value moved, by more than the tolerance
