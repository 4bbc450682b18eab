"""The one place that turns a plan's mode into a trainer."""

from __future__ import annotations

from client.training.dp_step import TrainingSet
from client.training.loop import LocalTrainer
from client.training.quantised import QuantisedTrainer
from client.training.union import UnionTrainer
from common.plan import Plan
from common.randomness import RandomSource
from common.trainable import TrainableModel

Trainer = LocalTrainer | QuantisedTrainer | UnionTrainer


def build_trainer(plan: Plan, model: TrainableModel, data: TrainingSet, source: RandomSource) -> Trainer:
    """What a site runs in a round of this plan."""
    if plan.mode == "distributed":
        return UnionTrainer(plan, model, data, source)
    kind = QuantisedTrainer if plan.masked else LocalTrainer
    return kind(plan, model, data, source)
