"""One step of DP-SGD at one hospital, from the draw of patients to the noisy mean gradient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from client.data.sampling import PoissonSampler
from client.training.clipping import clip_to_grid
from client.training.noise import rounded_gaussian
from client.training.per_example import PerExampleGradients
from client.training.skellam import skellam
from common.features import Batch, Features
from common.plan import Unit
from common.privacy.plan import PrivacyPlan
from common.randomness import RandomSource
from common.records.records import Records
from common.row_failures import surviving
from common.secagg.fixed_point import clamp
from common.trainable import Prepared, Stage, TrainableModel

_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True, repr=False)
class TrainingSet:
    """A hospital's records, ready for training.

    Attributes:
        prepared: Features of the records.
        labels: Shape `[N]`.
        units: Index of the privacy unit that each record belongs to, shape `[N]`.
        unit_count: Number of units.
    """

    prepared: Prepared
    labels: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    unit_count: int

    @classmethod
    def of(cls, records: Records, model: TrainableModel, unit: Unit) -> TrainingSet:
        """Prepare a hospital's records: the slow part, done once."""
        return cls(model.prepare(records.texts), records.labels, records.units(unit), records.unit_count(unit))


class DpStep:
    """Draw, differentiate, add up by unit, clip, sum on the grid, add noise, divide by the public divisor.

    Guarantees:
        One call is one Poisson-subsampled Gaussian mechanism with the plan's q, σ and clip norm (Abadi et al. 2016,
        Algorithm 1, with Poisson sampling and a fixed divisor), so T calls cost what `PrivacyPlan.event` says. The
        result is exactly `PrivacyPlan.decode` of an integer vector: clipped sum plus rounded Gaussian noise.

    Edge cases:
        An empty draw gives noise alone. A unit with a non-finite gradient counts as zero, and so does one with a record
        on which the model fails; a record that was lost when it was prepared counts as zero itself. So a failure is
        never an answer: what leaves is the sum of the others and the noise, as if that unit had not been drawn.

    Args:
        plan: Constants of the mechanism.
        model: The shared model; its loaded values are where the gradient is taken.
        data: This hospital's records.
        source: Randomness of the draw and the noise; `SecretSource` outside tests.
    """

    def __init__(self, plan: PrivacyPlan, model: TrainableModel, data: TrainingSet, source: RandomSource) -> None:
        self._plan = plan
        self._model = model
        self._data = data
        self._source = source
        self._sampler = PoissonSampler(plan.sampling_rate, data.unit_count, source)
        self._rows_of_unit = _group_rows(data.units, data.unit_count)

    def noisy_gradient(self, gradients: PerExampleGradients, stage: Stage) -> npt.NDArray[np.float64]:
        """The noisy mean gradient of what the stage trains, shape `[d]`."""
        drawn = self._sampler.draw()
        total = self.clipped_sum(drawn, gradients, stage)
        return self._plan.decode(total + rounded_gaussian(self._plan.noise_scale, len(total), self._source))

    def noisy_share(self, gradients: PerExampleGradients, stage: Stage, bound: int) -> npt.NDArray[np.int64]:
        """This site's part of a step of the union: its clamped clipped sum and its share of the noise, `[d]`.

        Guarantees:
            Added up modulo 2^32 over the sites, of which at least `plan.noise_shares` are honest and present, it is one
            Poisson-subsampled Skellam mechanism with the plan's q, σ and clip norm. Alone it protects less, because its
            noise is a share: it leaves under a mask only.

        Args:
            gradients: Per-record gradients of the loaded values.
            stage: What is trained.
            bound: As `common.privacy.mechanism.sum_bound` gives it.
        """
        drawn = self._sampler.draw()
        total = clamp(self.clipped_sum(drawn, gradients, stage), bound)
        return total + skellam(self._plan.share_variance, len(total), self._source)

    def clipped_sum(
        self, drawn: npt.NDArray[np.int64], gradients: PerExampleGradients, stage: Stage
    ) -> npt.NDArray[np.int64]:
        """Sum of the drawn units' clipped gradients in grid steps, shape `[d]`; zero for an empty draw."""
        parameters = self._model.parameters(stage)
        dimension = sum(tensor.numel() for tensor in parameters)
        total = np.zeros(dimension, dtype=np.int64)
        for chunk in self._chunks(drawn, _CHUNK_BYTES // (4 * dimension)):
            total += clip_to_grid(self._unit_gradients(chunk, gradients, stage), self._plan).sum(axis=0)
        return total

    def _unit_gradients(
        self, units: npt.NDArray[np.int64], gradients: PerExampleGradients, stage: Stage
    ) -> npt.NDArray[np.float64]:
        """Each unit's summed gradient in float64, shape `[U, d]`.

        A unit's rows are added up in their own order, whatever order batches bring them in: a float sum depends on its
        order, and with it one unit's sum would depend on who else was drawn.
        """
        rows = np.concatenate([self._rows_of_unit[unit] for unit in units])
        by_row = self._row_gradients(rows, gradients, stage)
        starts = np.cumsum([0, *(len(self._rows_of_unit[unit]) for unit in units)])
        return np.stack([by_row[start:end].astype(np.float64).sum(axis=0) for start, end in pairwise(starts.tolist())])

    def _row_gradients(
        self, rows: npt.NDArray[np.int64], gradients: PerExampleGradients, stage: Stage
    ) -> npt.NDArray[np.float32]:
        """One gradient a row, in the rows' order, shape `[R, d]`; 0 where a row was lost, NaN where the model fails."""
        parameters = self._model.parameters(stage)
        order = {int(row): index for index, row in enumerate(rows)}
        by_row = np.full((len(rows), sum(tensor.numel() for tensor in parameters)), np.nan, dtype=np.float32)
        lost = self._data.prepared.lost[rows]
        by_row[lost] = 0

        def differentiate(batch: Batch) -> torch.Tensor:
            labels = torch.from_numpy(self._data.labels[batch.rows]).to(self._model.compute.device)
            return gradients(batch, labels, parameters, pooled=stage == "head").cpu()

        for batch in self._features(stage).batches(rows[~lost], self._model.compute.tokens_per_batch):
            for part, values in surviving(batch, differentiate):
                by_row[[order[int(row)] for row in part.rows]] = values.numpy()
        return by_row

    def _chunks(self, drawn: npt.NDArray[np.int64], most_rows: int) -> list[npt.NDArray[np.int64]]:
        """The drawn units, a few at a time, so that their rows' gradients fit memory; one unit is never split."""
        if not len(drawn):
            return []
        ends = np.cumsum([len(self._rows_of_unit[unit]) for unit in drawn])
        return np.split(drawn, np.flatnonzero(np.diff(ends // max(1, most_rows))) + 1)

    def _features(self, stage: Stage) -> Features:
        return self._data.prepared.at(stage)


def _group_rows(units: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    """Row numbers of each unit."""
    order = np.argsort(units, kind="stable")
    return np.split(order, np.cumsum(np.bincount(units, minlength=count))[:-1])
