"""References for a federated run on the same data: without privacy, and with less company."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.optim import AdamW

from client.training.dp_step import TrainingSet
from common.randomness import public_generator
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


def _groups(model: TrainableModel, config: BaselineConfig) -> list[dict[str, object]]:
    adapter = model.adapter_parameters(model.stage(model.plan.rounds))
    groups: list[dict[str, object]] = [{"params": model.parameters("head"), "lr": config.head_learning_rate}]
    return [*groups, {"params": adapter, "lr": config.learning_rate}] if adapter else groups


def _epochs(rows: int, config: BaselineConfig, seed: int) -> list[npt.NDArray[np.int64]]:
    generator = public_generator(seed, "non-private shuffles")
    orders = [generator.permutation(rows) for _ in range(config.epochs)]
    return [order[start : start + config.batch_rows] for order in orders for start in range(0, rows, config.batch_rows)]
