"""Oracle: torch's own optimizers, fed the same gradients."""

import numpy as np
import pytest
import torch

from server.aggregation.union_step import UnionAdam, UnionSgd

PARTS = slice(0, 3), slice(3, 5)
RATES = (0.5, 0.125)
FACTORS = (0.25, 1.0, 0.75, 0.5, 0.25, 0.125)
START = np.array([1.0, -2.0, 0.5, 3.0, -0.25])
GRADIENTS = np.random.default_rng(0).normal(0, 1, (len(FACTORS), 5)) * np.array([1.0, 1e-6, 1e3, 1.0, 1.0])

RULES = {
    "sgd": (lambda rates: UnionSgd(rates, 0.0), lambda groups: torch.optim.SGD(groups, momentum=0.0)),
    "momentum": (lambda rates: UnionSgd(rates, 0.9), lambda groups: torch.optim.SGD(groups, momentum=0.9)),
    "adam": (lambda rates: UnionAdam(rates, 0.9, 0.99), lambda groups: torch.optim.Adam(groups, betas=(0.9, 0.99))),
    "adam without memory": (
        lambda rates: UnionAdam(rates, 0.0, 0.0),
        lambda groups: torch.optim.Adam(groups, betas=(0.0, 0.0)),
    ),
}


def by_torch(build, trained):
    """One model after each step, by a torch optimizer that lives through all of them; a part that waits has no grad."""
    tensors = [torch.tensor(START[part], requires_grad=True) for part in PARTS]
    optimizer = build([{"params": [tensor], "lr": rate} for tensor, rate in zip(tensors, RATES, strict=True)])
    models = []
    for factor, gradient, parts in zip(FACTORS, GRADIENTS, trained, strict=True):
        for index, (tensor, group) in enumerate(zip(tensors, optimizer.param_groups, strict=True)):
            tensor.grad = torch.tensor(gradient[PARTS[index]]) if index in parts else None
            group["lr"] = RATES[index] * factor
        optimizer.step()
        models.append(np.concatenate([tensor.detach().numpy() for tensor in tensors]))
    return models


def by_rule(build, trained, total_of=lambda gradient, part: gradient):
    """The same by a rule that is built anew for each step, as a run does it."""
    weights, moments, models = START.copy(), build(()).initial(5), []
    for factor, gradient, parts in zip(FACTORS, GRADIENTS, trained, strict=True):
        rule = build(tuple((PARTS[index], RATES[index] * factor) for index in parts))
        weights, moments = rule.apply(weights, total_of(gradient, parts), 3, moments)
        models.append(weights)
    return models


@pytest.mark.parametrize(("ours", "theirs"), RULES.values(), ids=RULES)
def test_a_run_equals_torchs_optimizer_step_by_step(ours, theirs):
    every = [(0, 1)] * len(FACTORS)
    np.testing.assert_allclose(by_rule(ours, every), by_torch(theirs, every), rtol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), RULES.values(), ids=RULES)
def test_a_part_that_joins_later_starts_like_a_parameter_that_is_new_to_torch(ours, theirs):
    trained = [(1,), (1,), *[(0, 1)] * (len(FACTORS) - 2)]
    found = by_rule(ours, trained)
    np.testing.assert_allclose(found, by_torch(theirs, trained), rtol=1e-12)
    assert [model[PARTS[0]].tolist() for model in found[:2]] == [START[PARTS[0]].tolist()] * 2


@pytest.mark.parametrize(("ours", "theirs"), RULES.values(), ids=RULES)
def test_a_part_that_waits_takes_nothing_up_from_the_total(ours, theirs):
    def adapter_zero_while_it_waits(gradient, parts):
        return gradient * np.repeat([0 in parts, 1.0], [3, 2])

    trained = [(1,), (1,), *[(0, 1)] * (len(FACTORS) - 2)]
    np.testing.assert_array_equal(by_rule(ours, trained), by_rule(ours, trained, adapter_zero_while_it_waits))


def test_momentum_by_hand():
    rule = UnionSgd(((slice(0, 1), 0.5),), momentum=0.5)
    # v = 4, w = 8 - 2 = 6; then v = 0.5 * 4 + 2 = 4, w = 6 - 2 = 4.
    weights, moments = rule.apply(np.array([8.0]), np.array([4.0]), 2, rule.initial(1))
    assert weights.tolist() == [6.0]
    weights, moments = rule.apply(weights, np.array([2.0]), 2, moments)
    assert (weights.tolist(), moments["velocity"].tolist()) == ([4.0], [4.0])


def test_adams_first_step_is_the_rate_whatever_the_size_of_the_gradient():
    rule = UnionAdam(((slice(0, 3), 0.25),), 0.9, 0.999)
    weights, moments = rule.apply(np.zeros(3), np.array([1e6, -1.0, 1e-3]), 2, rule.initial(3))
    np.testing.assert_allclose(weights, [-0.25, 0.25, -0.25], rtol=1e-4)
    assert moments["steps"].tolist() == [1.0, 1.0, 1.0]
