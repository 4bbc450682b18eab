"""The coordinator's look at a global model: loss and metrics on a public set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.tasks.metrics import classification_metrics, cross_entropy
from common.trainable import Prepared, Stage, TrainableModel
from server.state import Evaluation

Floats = npt.NDArray[np.floating]


class PublicEvaluator:
    """Evaluates global models on a set that is public to the coordinator.

    Args:
        model: The shared model; its loaded values are replaced.
        prepared: Features of the public texts.
        labels: Their labels, shape `[N]`.
    """

    def __init__(self, model: TrainableModel, prepared: Prepared, labels: npt.NDArray[np.int64]) -> None:
        self._model = model
        self._prepared = prepared
        self._labels = labels
        names = model.plan.task.labels
        positive = model.plan.task.positive_label
        self._positive = None if positive is None else names.index(positive)

    def evaluate(self, weights: Floats, basis: Floats) -> Evaluation:
        """Loss and metrics of a global model; the head stage's shortcut is taken where the adapter has not moved."""
        self._model.load(weights.astype(np.float32), basis.astype(np.float32))
        stage = self._stage(weights)
        logits = self._model.logits(self._prepared.at(stage), stage)
        return Evaluation(
            cross_entropy(logits, self._labels), classification_metrics(logits, self._labels, self._positive)
        )

    def _stage(self, weights: Floats) -> Stage:
        if self._prepared.pooled is None or (self._prepared.hidden is not None and self._adapter_moved(weights)):
            return "full"
        return "head"

    def _adapter_moved(self, weights: Floats) -> bool:
        adapter = self._model.groups.get("adapter", slice(0, 0))
        return not np.array_equal(weights[adapter].astype(np.float32), self._model.start[adapter])
