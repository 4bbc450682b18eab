"""A hospital's part of a round in mode per-site where updates are masked: the update in whole numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from client.training.dp_step import TrainingSet
from client.training.loop import LocalTrainer
from common.errors import CloisterError
from common.messages import Order
from common.plan import Plan
from common.randomness import RandomSource
from common.secagg.fixed_point import quantise
from common.trainable import TrainableModel


class QuantisedTrainer:
    """The update of `LocalTrainer`, which is private by itself, cut and rounded so that it can be masked.

    Args:
        plan: The finished plan, of mode per-site.
        model: The shared model.
        data: This hospital's records.
        source: Randomness of sampling and noise.
    """

    def __init__(self, plan: Plan, model: TrainableModel, data: TrainingSet, source: RandomSource) -> None:
        self._sites, self._limit = plan.sites, plan.secure_aggregation.update_limit
        self._trainer = LocalTrainer(plan, model, data, source)

    def train(self, order: Order) -> npt.NDArray[np.int64]:
        """The round's update in steps of `common.secagg.fixed_point.update_step`, `[d]`.

        Raises:
            CloisterError: When the update is not finite.
        """
        update = self._trainer.train(order)
        try:
            return quantise(update, self._sites, self._limit)
        except ValueError:
            raise CloisterError("the update is not finite, so there is nothing to send") from None
