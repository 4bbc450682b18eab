"""Public records of the coordinator, and what they say about a global model. No hospital's are here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.trainable import TrainableModel
from server.config import PublicDataConfig
from server.evaluation import PublicEvaluator
from server.public_records import public_records
from server.results import Judged
from server.state import GlobalModel


@dataclass(frozen=True, eq=False, repr=False)
class PublicSet:
    """One public set, ready to judge models.

    Attributes:
        evaluator: Judges.
        rows_by_label: How many rows of each label it has.
    """

    evaluator: PublicEvaluator
    rows_by_label: dict[str, int]


@dataclass(frozen=True, eq=False, repr=False)
class PublicSets:
    """What a coordinator can judge a model on.

    Attributes:
        validation: Decides about stopping; None where there is none.
        test: Decides nothing; None where there is none.
    """

    validation: PublicSet | None = None
    test: PublicSet | None = None

    def judged(self, name: str, model: GlobalModel) -> Judged | None:
        """Figures of a model on the set of that name, if there is one."""
        chosen = {"validation": self.validation, "test": self.test}[name]
        if chosen is None:
            return None
        return Judged(chosen.evaluator.evaluate(model.weights, model.basis), chosen.rows_by_label)


def open_public_sets(config: PublicDataConfig, model: TrainableModel) -> PublicSets:
    """Read the public files and compute the frozen layers over them.

    Raises:
        DataError: When a file cannot be read or does not fit the plan's labels.
    """
    return PublicSets(_open(config, config.validation_files, model), _open(config, config.test_files, model))


def _open(config: PublicDataConfig, files: tuple[Path, ...], model: TrainableModel) -> PublicSet | None:
    if not files:
        return None
    labels = model.plan.task.labels
    records = public_records(config, files, labels)
    evaluator = PublicEvaluator(model, model.prepare(records.texts), records.labels)
    return PublicSet(evaluator, _rows_by_label(records.labels, labels))


def _rows_by_label(indices: npt.NDArray[np.int64], labels: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(indices, minlength=len(labels))
    return dict(zip(labels, counts.tolist(), strict=True))
