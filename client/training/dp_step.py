"""One step of DP-SGD at one hospital, from the draw of patients to the noisy mean gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from client.data.records import Records
from client.data.sampling import PoissonSampler
from client.training.clipping import clip_to_grid
from client.training.noise import rounded_gaussian
from client.training.per_example import PerExampleGradients
from client.training.skellam import skellam
from common.features import Features
from common.plan import Unit
from common.privacy.plan import PrivacyPlan
from common.randomness import RandomSource
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
        An empty draw gives noise alone. A unit with a non-finite gradient counts as zero. An error part of the way
        leaves nothing behind that a later step could see.

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
        for chunk in _chunks(drawn, max(1, _CHUNK_BYTES // (8 * dimension))):
            total += clip_to_grid(self._unit_gradients(chunk, gradients, stage), self._plan).sum(axis=0)
        return total

    def _unit_gradients(
        self, units: npt.NDArray[np.int64], gradients: PerExampleGradients, stage: Stage
    ) -> npt.NDArray[np.float64]:
        """Each unit's summed gradient in float64, shape `[U, d]`."""
        parameters = self._model.parameters(stage)
        rows = np.concatenate([self._rows_of_unit[unit] for unit in units])
        place = torch.from_numpy(np.searchsorted(units, self._data.units[rows]))
        order = {int(row): index for index, row in enumerate(rows)}
        sums = torch.zeros((len(units), sum(tensor.numel() for tensor in parameters)), dtype=torch.float64)
        for batch in self._features(stage).batches(rows, self._model.compute.tokens_per_batch):
            labels = torch.from_numpy(self._data.labels[batch.rows]).to(self._model.compute.device)
            parts = gradients(batch, labels, parameters, pooled=stage == "head").to("cpu", torch.float64)
            sums.index_add_(0, place[[order[int(row)] for row in batch.rows]], parts)
        return sums.numpy()

    def _features(self, stage: Stage) -> Features:
        return self._data.prepared.at(stage)


def _group_rows(units: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    """Row numbers of each unit."""
    order = np.argsort(units, kind="stable")
    return np.split(order, np.cumsum(np.bincount(units, minlength=count))[:-1])


def _chunks(values: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
