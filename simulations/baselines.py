"""References for a federated run on the same data: without privacy, and with less company."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.optim import AdamW

from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import build_optimizer, recording, set_gradient, set_rates
from common.privacy.plan import PrivacyPlan
from common.randomness import RandomSource, public_generator
from common.trainable import TrainableModel
from simulations.scenario import BaselineConfig


def train_without_privacy(
    model: TrainableModel, data: TrainingSet, config: BaselineConfig, seed: int
) -> npt.NDArray[np.float32]:
    """Ordinary fine-tuning of the same trained values on pooled rows: AdamW, shuffled batches, falling rate.

    Args:
        model: The model; loaded with the result afterwards.
        data: The pooled rows.
        config: Epochs, batch and rates.
        seed: Decides the shuffles.

    Returns:
        The trained values, shape `[d]`.
    """
    stage = model.stage(model.plan.rounds)
    model.load(model.start, np.zeros(0, dtype=np.float32))
    optimizer = AdamW(_groups(model, config), weight_decay=0.0)
    full_rates = [group["lr"] for group in optimizer.param_groups]
    batches = _epochs(len(data.labels), config, seed)
    for step, rows in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, full_rates, strict=True):
            group["lr"] = rate * (1.0 - step / len(batches))
        optimizer.zero_grad(set_to_none=True)
        for batch in data.prepared.at(stage).compact_batches(rows, model.compute.tokens_per_batch):
            labels = torch.from_numpy(data.labels[batch.rows]).to(model.compute.device)
            logits = model.module(batch.values, batch.mask, pooled=stage == "head")
            (functional.cross_entropy(logits, labels, reduction="sum") / len(rows)).backward()
        optimizer.step()
    return model.read()


def train_with_privacy(
    model: TrainableModel, data: TrainingSet, mechanism: PrivacyPlan, source: RandomSource
) -> npt.NDArray[np.float32]:
    """DP-SGD in one place, as a plain loop: no rounds, no messages, no masks.

    What mode distributed must equal: the same steps of the same optimizer, with one noise for all rows.

    Args:
        model: The model; its plan says which steps train the head alone. Loaded with the result afterwards.
        data: The rows.
        mechanism: Clip norm, noise, sampling rate and divisor.
        source: Randomness of sampling and noise.

    Returns:
        The trained values, shape `[d]`.
    """
    plan, step = model.plan, DpStep(mechanism, model, data, source)
    model.load(model.start, np.zeros(0, dtype=np.float32))
    optimizer = build_optimizer(plan.optimizer, model, model.stage(plan.rounds))
    with recording(model) as gradients:
        for number in range(plan.steps):
            stage = model.stage(number // plan.local_steps + 1)
            set_rates(optimizer, plan.optimizer, number, plan.steps)
            set_gradient(model.parameters(stage), step.noisy_gradient(gradients, stage))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)  # values that wait have no gradient, and torch leaves them alone
    return model.read()


def _groups(model: TrainableModel, config: BaselineConfig) -> list[dict[str, object]]:
    adapter = model.adapter_parameters(model.stage(model.plan.rounds))
    groups: list[dict[str, object]] = [{"params": model.parameters("head"), "lr": config.head_learning_rate}]
    return [*groups, {"params": adapter, "lr": config.learning_rate}] if adapter else groups


def _epochs(rows: int, config: BaselineConfig, seed: int) -> list[npt.NDArray[np.int64]]:
    generator = public_generator(seed, "non-private shuffles")
    orders = [generator.permutation(rows) for _ in range(config.epochs)]
    return [order[start : start + config.batch_rows] for order in orders for start in range(0, rows, config.batch_rows)]
