"""A hospital's part of a round in mode distributed: its share of one DP-SGD step of the union of all hospitals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import recording
from common.messages import Order
from common.plan import Plan
from common.privacy.mechanism import mechanism_of, sum_bound
from common.randomness import RandomSource
from common.trainable import TrainableModel


class UnionTrainer:
    """Gives one hospital's clipped sum and share of the noise, in whole numbers that are to be masked.

    Guarantees:
        Records enter the result through `DpStep.noisy_share` alone. Values that a round does not train are exactly 0,
        at every site and whatever its records. Nothing outlives a round.

    Args:
        plan: The finished plan, of mode distributed.
        model: The shared model.
        data: This hospital's records.
        source: Randomness of sampling and noise.

    Raises:
        ConfigError: When a sum over the sites could wrap round.
    """

    def __init__(self, plan: Plan, model: TrainableModel, data: TrainingSet, source: RandomSource) -> None:
        mechanism = mechanism_of(plan)
        self._model = model
        self._bound = sum_bound(mechanism, plan.sites)
        self._step = DpStep(mechanism, model, data, source)

    def train(self, order: Order) -> npt.NDArray[np.int64]:
        """One step's share at the order's values, in grid steps, `[d]`."""
        self._model.load(order.weights, order.basis)
        stage = self._model.stage(order.round_number)
        with recording(self._model) as gradients:
            part = self._step.noisy_share(gradients, stage, self._bound)
        share = np.zeros(self._model.spec.dimension, dtype=np.int64)
        share[self._model.active(stage)] = part
        return share
