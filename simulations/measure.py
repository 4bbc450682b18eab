"""What a researcher may watch on one machine, and a real coordinator could not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.training.dp_step import TrainingSet
from common.randomness import public_generator
from common.tasks.metrics import cross_entropy
from common.trainable import TrainableModel
from server.evaluation import PublicEvaluator
from server.state import Evaluation

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, repr=False)
class WatchedEvaluator:
    """Validation as the coordinator sees it, with test and training figures beside it under names of their own.

    Guarantees:
        `loss` and the metrics without prefix are those of the validation set alone, so stopping and choosing never
        look at test or training rows. Training figures stay on the researcher's machine; they are not private.

    Attributes:
        model: The shared model.
        validation: The public set that decides.
        test: The public set that decides nothing.
        test_every_round: Whether `test_*` metrics are added.
        training: Private sets to watch for overfitting; empty for none.
        training_rows: At most so many rows of each.
    """

    model: TrainableModel
    validation: PublicEvaluator
    test: PublicEvaluator
    test_every_round: bool = True
    training: Sequence[TrainingSet] = ()
    training_rows: int = 0

    def evaluate(self, weights: Floats, basis: Floats) -> Evaluation:
        """The validation set's loss and metrics, plus `test_*` and `train_loss`."""
        judged = self.validation.evaluate(weights, basis)
        return Evaluation(
            judged.loss, {**judged.metrics, **self._test(weights, basis), **self._training(weights, basis)}
        )

    def _test(self, weights: Floats, basis: Floats) -> Mapping[str, float]:
        if not self.test_every_round:
            return {}
        seen = self.test.evaluate(weights, basis)
        return {"test_loss": seen.loss, **{f"test_{name}": value for name, value in seen.metrics.items()}}

    def _training(self, weights: Floats, basis: Floats) -> Mapping[str, float]:
        if not self.training:
            return {}
        self.model.load(weights.astype(np.float32), basis.astype(np.float32))
        return {"train_loss": float(np.mean([self._loss_on(data) for data in self.training]))}

    def _loss_on(self, data: TrainingSet) -> float:
        stage = self.model.stage(self.model.plan.rounds)
        count = min(self.training_rows, len(data.labels))
        rows = np.sort(public_generator(0, "watched rows").choice(len(data.labels), count, replace=False))
        return cross_entropy(self.model.logits(data.prepared.at(stage), stage, rows), data.labels[rows])
