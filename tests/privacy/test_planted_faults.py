"""The real DP step passes the checks of `acceptance`; with a fault planted in it, it does not.

docs/privacy-guarantees.md lists these faults with the tests that go red. Each fault is one that has been seen in the
field: the run finishes, the model looks fine, and the ε on the card is false.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from client.data.sampling import PoissonSampler
from client.training import clipping, dp_step
from client.training.clipping import clip_to_grid
from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import recording
from client.training.noise import rounded_gaussian
from client.training.per_example import PerExampleGradients
from common.base_model import load_base
from common.compute import ComputeConfig
from common.plan import Plan
from common.privacy.plan import PrivacyPlan
from common.randomness import RandomSource, public_generator
from common.records.records import build_records
from common.trainable import TrainableModel
from tests.plans import make_plan
from tests.privacy.acceptance import clipping_faults, divisor_faults, noise_faults, sampler_faults
from tests.sources import SeededSource

Patch = pytest.MonkeyPatch
RATE = 1 / 3
# Patient c has three records that pull the same way; six patients in all.
PATIENTS = ["a", "b", "c", "c", "c", "d", "e", "f"]
TEXTS = ["had a rash", "no fever", *["severe rash after drug"] * 3, "well", "pain again", "new dose"]
LABELS = [1, 0, 1, 1, 1, 0, 1, 0]

RIGHT_CLIPPED_SUM = DpStep.clipped_sum
RIGHT_DECODE = PrivacyPlan.decode


@dataclass
class Stage:
    """A DP step on the tiny base that writes down what it drew and summed."""

    model: TrainableModel
    data: TrainingSet
    mechanism: PrivacyPlan
    gradients: PerExampleGradients
    drawn: list[np.ndarray] = field(default_factory=list)
    totals: list[np.ndarray] = field(default_factory=list)

    def step(self, source: RandomSource, **changes: float) -> DpStep:
        return DpStep(replace(self.mechanism, **changes), self.model, self.data, source)


@pytest.fixture(scope="module")
def whole(tiny_base: Path) -> Iterator[Stage]:
    plan: Plan = make_plan(privacy={"sampling_rate": RATE, "divisor": 5.0, "noise_multiplier": 1.5, "clip_norm": 0.05})
    compute = ComputeConfig(tokens_per_batch=128)
    model = TrainableModel(load_base(tiny_base, "tiny", compute), plan, compute)
    data = TrainingSet.of(build_records(TEXTS, LABELS, PATIENTS), model, "patient")
    with recording(model) as gradients:
        yield Stage(model, data, PrivacyPlan.from_terms(plan.privacy, plan.steps), gradients)


@pytest.fixture
def stage(whole: Stage, monkeypatch: Patch) -> Stage:
    watched = replace(whole, drawn=[], totals=[])

    def clipped_sum(self: DpStep, drawn: np.ndarray, *rest: object) -> np.ndarray:
        watched.drawn.append(drawn)
        watched.totals.append(RIGHT_CLIPPED_SUM(self, drawn, *rest))
        return watched.totals[-1]

    monkeypatch.setattr(DpStep, "clipped_sum", clipped_sum)
    return watched


# --- what is asked of the step ---------------------------------------------------------------------------------------


def sampling(stage: Stage, monkeypatch: Patch) -> set[str]:
    """Draws of many steps; their gradients do not matter, so they are left out."""
    monkeypatch.setattr(dp_step.DpStep, "_unit_gradients", lambda self, units, *_: np.zeros((len(units), 1)))
    monkeypatch.setattr(dp_step, "clip_to_grid", lambda rows, plan: np.zeros(rows.shape, dtype=np.int64))
    step = stage.step(SeededSource(1), noise_multiplier=0.0)
    for _ in range(3000):
        step.noisy_gradient(stage.gradients, "full")
    return sampler_faults(stage.drawn, RATE, stage.data.unit_count)


def noise(stage: Stage, monkeypatch: Patch) -> set[str]:
    """What a step releases less what it summed, in grid steps."""
    step = stage.step(SeededSource(2))
    means = [step.noisy_gradient(stage.gradients, "full") for _ in range(20)]
    unit = stage.mechanism.grid_step / stage.mechanism.divisor
    added = np.concatenate([mean / unit - total for mean, total in zip(means, stage.totals, strict=True)])
    assert np.abs(added - np.rint(added)).max() < 1e-6
    return noise_faults(np.rint(added), stage.mechanism.noise_multiplier * stage.mechanism.clip_bound)


def divisor(stage: Stage, monkeypatch: Patch) -> set[str]:
    step = stage.step(SeededSource(3), noise_multiplier=0.0)

    def once() -> tuple[int, np.ndarray, np.ndarray]:
        mean = step.noisy_gradient(stage.gradients, "full")
        return len(stage.drawn[-1]), stage.totals[-1], mean

    return divisor_faults(once, stage.mechanism, tries=12)


def bound(stage: Stage, monkeypatch: Patch) -> set[str]:
    """The clipper on rows that tempt it: at the bound in one value or in all, far over it, halves everywhere."""
    plan = replace(stage.mechanism, clip_norm=1.0, grid_bits=8)
    rows = np.zeros((4, 10_000))
    rows[0, 0], rows[1], rows[2], rows[3, :2] = 1.0, 0.01, 1e200, (1e300, -1e300)
    return clipping_faults(dp_step.clip_to_grid(rows, plan), plan)


def sensitivity(stage: Stage, monkeypatch: Patch) -> set[str]:
    """What one patient adds to the sum, for each patient."""
    step = stage.step(SeededSource(4))
    everybody = np.arange(stage.data.unit_count)
    total = step.clipped_sum(everybody, stage.gradients, "full")
    without = [step.clipped_sum(np.delete(everybody, one), stage.gradients, "full") for one in everybody]
    return clipping_faults(total - np.stack(without), stage.mechanism)


CHECKS = (sampling, noise, divisor, bound, sensitivity)


@pytest.mark.parametrize("check", CHECKS)
def test_the_real_step_passes(check: Callable[[Stage, Patch], set[str]], stage: Stage, monkeypatch: Patch) -> None:
    assert check(stage, monkeypatch) == set()


# --- faults ----------------------------------------------------------------------------------------------------------


def no_noise(monkeypatch: Patch) -> None:
    monkeypatch.setattr(dp_step, "rounded_gaussian", lambda scale, count, source: np.zeros(count, dtype=np.int64))


def two_thirds_of_the_noise(monkeypatch: Patch) -> None:
    monkeypatch.setattr(dp_step, "rounded_gaussian", lambda scale, *rest: rounded_gaussian(scale * 2 / 3, *rest))


def noise_in_units_of_the_gradient(monkeypatch: Patch) -> None:
    """σC instead of σ 2^b: forgotten that the sum is on the grid."""
    monkeypatch.setattr(PrivacyPlan, "noise_scale", property(lambda plan: plan.noise_multiplier * plan.clip_norm))


def the_same_noise_every_step(monkeypatch: Patch) -> None:
    monkeypatch.setattr(dp_step, "rounded_gaussian", lambda s, count, _: rounded_gaussian(s, count, SeededSource(0)))


def noise_once_per_step(monkeypatch: Patch) -> None:
    """One value for all coordinates."""
    monkeypatch.setattr(
        dp_step, "rounded_gaussian", lambda s, count, src: np.repeat(rounded_gaussian(s, 1, src), count)
    )


def division_by_the_actual_batch(monkeypatch: Patch) -> None:
    def noisy_gradient(self: DpStep, gradients: PerExampleGradients, part: str) -> np.ndarray:
        drawn = self._sampler.draw()
        total = self.clipped_sum(drawn, gradients, part)
        total = total + dp_step.rounded_gaussian(self._plan.noise_scale, len(total), self._source)
        return RIGHT_DECODE(replace(self._plan, divisor=float(max(1, len(drawn)))), total)

    monkeypatch.setattr(DpStep, "noisy_gradient", noisy_gradient)


def shuffled_batches(monkeypatch: Patch) -> None:
    """Passes over the units in random order, in batches of the expected size."""
    generator, waiting = public_generator(5, "shuffle"), []

    def draw(self: PoissonSampler) -> np.ndarray:
        if not waiting:
            order = generator.permutation(self._units)
            waiting.extend(np.sort(part) for part in np.split(order, self._units // 2))
        return waiting.pop()

    monkeypatch.setattr(PoissonSampler, "draw", draw)


def an_empty_draw_is_drawn_again(monkeypatch: Patch) -> None:
    right = PoissonSampler.draw

    def draw(self: PoissonSampler) -> np.ndarray:
        drawn = right(self)
        return drawn if len(drawn) else self.draw()

    monkeypatch.setattr(PoissonSampler, "draw", draw)


def rounding_to_nearest(monkeypatch: Patch) -> None:
    monkeypatch.setattr(clipping, "_rounded_within", lambda scaled, _: np.rint(scaled))


def clipping_each_value(monkeypatch: Patch) -> None:
    def clip(rows: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
        return np.trunc(np.clip(rows, -plan.clip_norm, plan.clip_norm) / plan.grid_step).astype(np.int64)

    monkeypatch.setattr(dp_step, "clip_to_grid", clip)


def clipping_each_record(monkeypatch: Patch) -> None:
    """'Patient-level' on the card, records in the code."""

    def clipped_sum(self: DpStep, drawn: np.ndarray, *rest: object) -> np.ndarray:
        every = np.arange(len(self._data.units))
        records = TrainingSet(self._data.prepared, self._data.labels, every, len(every))
        step = DpStep(self._plan, self._model, records, self._source)
        rows = np.flatnonzero(np.isin(self._data.units, drawn))
        return RIGHT_CLIPPED_SUM(step, rows, *rest)

    monkeypatch.setattr(DpStep, "clipped_sum", clipped_sum)


PLANTED = [
    (no_noise, noise, "variance"),
    (two_thirds_of_the_noise, noise, "variance"),
    (noise_in_units_of_the_gradient, noise, "variance"),
    (the_same_noise_every_step, noise, "fresh values"),
    (noise_once_per_step, noise, "normal shape"),
    (division_by_the_actual_batch, divisor, "public divisor"),
    (shuffled_batches, sampling, "batch size variance"),
    (an_empty_draw_is_drawn_again, sampling, "empty draws"),
    (rounding_to_nearest, bound, "norm bound"),
    (clipping_each_value, bound, "norm bound"),
    (clipping_each_record, sensitivity, "norm bound"),
]


@pytest.mark.parametrize(("plant", "check", "broken"), PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED])
def test_a_planted_fault_is_found(
    plant: Callable[[Patch], None],
    check: Callable[[Stage, Patch], set[str]],
    broken: str,
    stage: Stage,
    monkeypatch: Patch,
) -> None:
    plant(monkeypatch)
    assert broken in check(stage, monkeypatch)


def test_the_clipper_under_test_is_the_steps_own() -> None:
    assert dp_step.clip_to_grid is clip_to_grid
