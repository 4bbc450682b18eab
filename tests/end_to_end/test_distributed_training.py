"""Mode distributed on a real model: it is DP-SGD on the pooled records, and its noise is what the plan says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from client.training.dp_step import TrainingSet
from client.training.loop import recording
from client.training.union import UnionTrainer
from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import IntegrityError
from common.plan import Plan
from common.privacy.mechanism import mechanism_of
from common.records.records import build_records
from common.secagg.fixed_point import update_step
from common.secagg.messages import MaskedOrder
from common.trainable import Stage, TrainableModel
from common.wire import decode
from server.gather import Gathered
from server.masked_round import MaskedGatherer
from server.run import RunSetup, run
from server.state import Evaluation, GlobalModel
from simulations.federation import Setting, federate
from tests.masked_sites import NOTHING, Direct, Hospitals, make_hospitals
from tests.privacy.acceptance import noise_faults
from tests.sources import SeededSource

ROWS = (
    ("the patient had a rash", 1, "a"),
    ("no fever", 0, "a"),
    ("mild pain", 0, "b"),
    ("severe reaction after drug", 1, "c"),
    ("well again", 0, "c"),
    ("rash after new drug and fever", 1, "d"),
    ("seen again well", 0, "e"),
    ("severe rash noted", 1, "e"),
    ("history of allergy denied", 0, "f"),
)
SHARES = (slice(0, 3), slice(3, 5), slice(5, 9))


def tiny_model(base: Path, plan: Plan, compute: ComputeConfig | None = None) -> TrainableModel:
    compute = compute or ComputeConfig()
    return TrainableModel(load_base(base, "tiny", compute), plan, compute)


def training_set(model: TrainableModel, plan: Plan, rows: slice) -> TrainingSet:
    texts, labels, patients = zip(*ROWS[rows], strict=True)
    return TrainingSet.of(build_records(texts, labels, patients), model, plan.privacy.unit)


def employ(hospitals: Hospitals, model: TrainableModel) -> None:
    """Have the hospitals train the model, each on rows of its own."""
    hospitals.dimension = model.spec.dimension
    for place, name in enumerate(hospitals.names):
        data = training_set(model, hospitals.plan, SHARES[place % len(SHARES)])
        hospitals.trainers[name] = UnionTrainer(hospitals.plan, model, data, SeededSource(place))


# --- equal to pooled ---


def unit_gradients(model: TrainableModel, data: TrainingSet, stage: Stage) -> dict[int, np.ndarray]:
    """The gradient of each unit in float64: that of its records, one at a time, added up."""
    features, found = data.prepared.at(stage), {}
    with recording(model) as gradients:
        for row, unit in enumerate(data.units.tolist()):
            (batch,) = features.batches(np.array([row]), model.compute.tokens_per_batch)
            labels = torch.from_numpy(data.labels[[row]])
            (own,) = gradients(batch, labels, model.parameters(stage), pooled=stage == "head").numpy()
            found[unit] = found.get(unit, 0.0) + own.astype(np.float64)
    return found


def pooled_sum(model: TrainableModel, plan: Plan, stage: Stage) -> np.ndarray:
    """Clip each unit of the pooled records, cut the fraction off on the grid, add up; in Python's own numbers."""
    found = unit_gradients(model, training_set(model, plan, slice(None)), stage)
    total = [0] * len(found[0])
    for gradient in found.values():
        length = math.sqrt(math.fsum(value * value for value in gradient))
        factor = min(1.0, plan.privacy.clip_norm / length) * 2**plan.privacy.grid_bits / plan.privacy.clip_norm
        for place, value in enumerate(gradient):
            total[place] += int(value * factor)
    return np.array(total)


def pooled_run(model: TrainableModel, plan: Plan) -> tuple[list[np.ndarray], np.ndarray]:
    """Gradient descent with momentum on the union of all records; the sum of each step, and the last weights."""
    weights, velocity, sums = model.start.astype(np.float64), np.zeros(model.spec.dimension), []
    rates = dict.fromkeys(model.groups, plan.optimizer.learning_rate) | {"head": plan.optimizer.head_learning_rate}
    for number in range(1, plan.rounds + 1):
        model.load(weights.astype(np.float32), NOTHING)
        stage, total = model.stage(number), np.zeros(model.spec.dimension)
        total[model.active(stage)] = pooled_sum(model, plan, stage)
        sums.append(total * (plan.privacy.clip_norm / 2**plan.privacy.grid_bits / plan.privacy.divisor))
        for name, part in model.groups.items():
            if name == "head" or stage == "full":
                velocity[part] = plan.optimizer.momentum * velocity[part] + sums[-1][part]
                weights[part] = weights[part] - rates[name] * velocity[part]
    return sums, weights


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_without_noise_every_decoded_sum_is_that_of_a_pooled_run_bit_for_bit(tmp_path, tiny_base, monkeypatch, unit):
    optimizer = {"learning_rate": 0.5, "head_learning_rate": 0.25, "momentum": 0.5}
    hospitals = make_hospitals(
        tmp_path, 3, 1, 0, rounds=4, optimizer=optimizer, adapter={"head_rounds": 1},
        privacy={"unit": unit, "clip_norm": 0.5, "divisor": 8.0},
    )  # fmt: skip
    model = tiny_model(tiny_base, hospitals.plan, ComputeConfig(tokens_per_batch=64))
    employ(hospitals, model)
    gather, sums = MaskedGatherer.gather, []

    def watched(self: MaskedGatherer, *order: object) -> Gathered:
        gathered = gather(self, *order)
        sums.append(gathered.total)
        return gathered

    monkeypatch.setattr(MaskedGatherer, "gather", watched)
    start = GlobalModel(model.start.astype(np.float64), NOTHING)
    setup = RunSetup(hospitals.plan, hospitals.names, Direct(hospitals.doors()), start, model.groups)
    outcome = run(setup, hospitals.folder)
    expected, weights = pooled_run(model, hospitals.plan)
    assert [total.tobytes() for total in sums] == [total.tobytes() for total in expected]
    assert outcome.model.weights.tobytes() == weights.tobytes()
    assert np.abs(weights - model.start).max() > 0.01


# --- masked and not ---


class Indifferent:
    def evaluate(self, _weights: np.ndarray, _basis: np.ndarray) -> Evaluation:
        return Evaluation(1.0, {})


def per_site(folder: Path, base: Path, rounds: int, masked: bool) -> tuple[list[int], np.ndarray]:
    """Survivors of each round, and how far the model went, in a run in mode per-site without noise."""
    terms = {"masked": masked}
    hospitals = make_hospitals(
        folder, 3, 1, 0, mode="per-site", rounds=rounds, local_steps=2, secure_aggregation=terms,
        privacy={"grid_bits": 24}, optimizer={"learning_rate": 0.3, "momentum": 0.5},
    )  # fmt: skip
    model = tiny_model(base, hospitals.plan)
    sets = {name: training_set(model, hospitals.plan, rows) for name, rows in zip(hospitals.names, SHARES, strict=True)}
    setting = Setting(
        hospitals.plan, model, sets, Indifferent(), hospitals.folder, identities=hospitals.identities,
        make_source=lambda: SeededSource(1),
    )  # fmt: skip
    outcome = federate(setting).outcome
    return [summary.survivors for summary in outcome.rounds], outcome.model.weights - model.start


@pytest.mark.parametrize("rounds", [1, 4])
def test_masked_updates_give_the_unmasked_run_up_to_the_rounding_of_the_grid(tmp_path, tiny_base, rounds):
    survivors, masked = per_site(tmp_path, tiny_base, rounds, masked=True)
    assert survivors == [3] * rounds
    survivors, plain = per_site(tmp_path, tiny_base, rounds, masked=False)
    assert survivors == [3] * rounds
    half_a_step = update_step(3, 16.0) / 2
    # In the first round every site starts from the same model; after it, training multiplies the difference.
    assert 0 < np.abs(masked - plain).max() <= half_a_step * (1 if rounds == 1 else 100)
    assert np.abs(plain).max() > 1e5 * half_a_step


# --- noise ---

N, D, C = 7, 2, 1
NOISY_ROUNDS = 40


@pytest.fixture(scope="module")
def noise_totals(tmp_path_factory, tiny_base) -> dict[int, np.ndarray]:
    """Decoded totals, in grid steps, of rounds whose draws are empty, by the number of sites that were missing."""
    found = {}
    for missing in range(D + 1):
        privacy = {"noise_multiplier": 2.0, "grid_bits": 12, "sampling_rate": 1e-9, "divisor": 1.0}
        folder = tmp_path_factory.mktemp("noise")
        hospitals = make_hospitals(folder, N, D, C, rounds=NOISY_ROUNDS, privacy=privacy)
        model = tiny_model(tiny_base, hospitals.plan)
        employ(hospitals, model)
        found[missing] = np.concatenate(list(totals_without(hospitals, model, missing)))
    return found


def totals_without(hospitals: Hospitals, model: TrainableModel, missing: int):
    def lost(site: str, request: bytes) -> bool:
        return site in hospitals.names[:missing] and is_order(request)

    gatherer = hospitals.gatherer(Direct(hospitals.doors(), lost))
    for number in range(1, NOISY_ROUNDS + 1):
        gathered = gatherer.gather(number, model.start, NOTHING)
        assert (gathered.survivors, gathered.abort) == (N - missing, "")
        yield gathered.total / mechanism_of(hospitals.plan).grid_step


def is_order(request: bytes) -> bool:
    try:
        decode(request, MaskedOrder)
    except IntegrityError:
        return False
    return True


@pytest.mark.parametrize("missing", range(D + 1))
def test_the_noise_of_a_sum_has_the_stated_variance_whoever_drops_out(noise_totals, missing):
    stated = 2.0 * 2**12
    scale = stated * math.sqrt((N - missing) / (N - D - C))
    assert noise_faults(noise_totals[missing], scale) == set()
    assert scale > stated  # the accounted noise is there, and more: c shares are not counted on
    others = {math.sqrt((N - other) / (N - D - C)) for other in range(D + 1) if other != missing}
    for wrong in {*others, math.sqrt(2 / 3), math.sqrt(3 / 2), 1.0, math.sqrt(N), 1 / math.sqrt(N)}:
        factor = wrong if wrong in others or wrong == 1.0 else wrong * scale / stated
        assert "variance" in noise_faults(noise_totals[missing], stated * factor)
