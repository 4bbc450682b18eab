"""A hospital's part of a round in mode per-site: K DP-SGD steps, then the change of the trained values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import SGD, Adam, Optimizer

from client.training.dp_step import DpStep, TrainingSet
from client.training.per_example import PerExampleGradients
from common.messages import Order
from common.plan import OptimizerConfig, Plan
from common.privacy.mechanism import mechanism_of
from common.randomness import RandomSource
from common.schedule import rate_factor
from common.trainable import Stage, TrainableModel


class LocalTrainer:
    """Trains one hospital's share of a run.

    Guarantees:
        Records enter the result only through `DpStep`; the optimizer works on its noisy output (post-processing).
        A round starts from the order's values alone: neither optimizer moments nor gradients outlive a round, so a
        repeated or interrupted round leaves nothing behind.

    Args:
        plan: The finished plan.
        model: The shared model.
        data: This hospital's records.
        source: Randomness of sampling and noise.
    """

    def __init__(self, plan: Plan, model: TrainableModel, data: TrainingSet, source: RandomSource) -> None:
        self._plan = plan
        self._model = model
        self._step = DpStep(mechanism_of(plan), model, data, source)

    def train(self, order: Order) -> npt.NDArray[np.float32]:
        """Run K steps from the order's values and return the change, shape `[d]`; values not trained change by 0."""
        self._model.load(order.weights, order.basis)
        before = self._model.read()
        stage = self._model.stage(order.round_number)
        first = (order.round_number - 1) * self._plan.local_steps
        with recording(self._model) as gradients:
            optimizer = build_optimizer(self._plan.optimizer, self._model, stage)
            for step in range(first, first + self._plan.local_steps):
                set_rates(optimizer, self._plan.optimizer, step, self._plan.steps)
                self._move(optimizer, stage, self._step.noisy_gradient(gradients, stage))
        return self._model.read() - before

    def _move(self, optimizer: Optimizer, stage: Stage, gradient: npt.NDArray[np.float64]) -> None:
        set_gradient(self._model.parameters(stage), gradient)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@contextmanager
def recording(model: TrainableModel) -> Iterator[PerExampleGradients]:
    """Per-record gradients while the context lasts; the hooks are taken off afterwards, whatever happens."""
    gradients = PerExampleGradients(model.module)
    try:
        yield gradients
    finally:
        gradients.close()
        model.module.eval()


def build_optimizer(config: OptimizerConfig, model: TrainableModel, stage: Stage) -> Optimizer:
    """The site optimizer over what the stage trains, the head with a rate of its own."""
    groups = [
        {"params": group, "lr": rate, "full_rate": rate}
        for group, rate in _grouped(config, model, stage).values()
        if group
    ]
    if config.rule == "adam":
        return Adam(groups, betas=(config.momentum, config.second_moment))
    return SGD(groups, momentum=config.momentum)


def _grouped(
    config: OptimizerConfig, model: TrainableModel, stage: Stage
) -> Mapping[str, tuple[list[torch.Tensor], float]]:
    head_rate = config.head_learning_rate or config.learning_rate
    return {
        "adapter": (model.adapter_parameters(stage), config.learning_rate),
        "head": (model.parameters("head"), head_rate),
    }


def set_rates(optimizer: Optimizer, config: OptimizerConfig, step: int, steps: int) -> None:
    """Set every group's learning rate for a step of the whole run."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_rate"] * rate_factor(config, step, steps)


def set_gradient(parameters: list[torch.Tensor], gradient: npt.NDArray[np.float64]) -> None:
    """Put a flat gradient into the tensors' `grad`."""
    flat = torch.from_numpy(gradient.astype(np.float32))
    start = 0
    for tensor in parameters:
        tensor.grad = flat[start : start + tensor.numel()].reshape(tensor.shape).to(tensor.device)
        start += tensor.numel()
