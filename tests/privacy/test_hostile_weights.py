"""A coordinator may send any weights: one unit still moves the clipped sum by its own clipped gradient, bit for bit.

What a patient does to the gradients of others, by the padding or the number of rows in a batch, is nothing for honest
weights but as large as they like for weights that a coordinator makes for it.
"""

from pathlib import Path

import numpy as np
import pytest

from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import recording
from common.base_model import load_base
from common.compute import ComputeConfig
from common.features import Features
from common.privacy.plan import PrivacyPlan
from common.records.records import build_records
from common.trainable import TrainableModel
from tests.plans import make_plan
from tests.sources import SeededSource
from tests.tiny_base import WORDS, make_tiny_base

OTHERS = 13
KNOWN = "the patient had a rash"


def patients(target_words: int, target: int) -> tuple[list[str], list[int], list[str]]:
    """OTHERS patients with a text that the coordinator knows, and one more at place `target` with another text."""
    generator = np.random.default_rng(3)
    texts = [KNOWN] * OTHERS
    labels = [index % 2 for index in range(OTHERS)]
    texts.insert(target, " ".join(generator.choice(WORDS, size=target_words)))
    labels.insert(target, 1)
    return texts, labels, [f"{index:02d}" for index in range(OTHERS + 1)]


def overflowing(model: TrainableModel) -> tuple[np.ndarray, np.ndarray]:
    """Scores of minus infinity between all known tokens: without padding NaN, with padding the padded keys win."""
    hidden = model.prepare([KNOWN]).at("full").values.float().numpy()
    one = np.linalg.lstsq(hidden, np.ones(len(hidden)), rcond=None)[0]  # its product with every known token is 1
    factors = {name: value.copy() for name, value in model.basis_spec.split(model.basis()).items()}
    trained = {name: value.copy() for name, value in model.spec.split(model.start).items()}
    for name, value in factors.items():
        if ".query." in name or ".key." in name:
            value[:] = 0
            value[0] = one
    for name, value in trained.items():
        if ".query." in name or ".key." in name:
            value[:] = 0
            value[:, 0] = 1e32 if ".query." in name else -1e10
    trained["head.weight"][1] = np.random.default_rng(3).normal(size=hidden.shape[1])
    return model.spec.join(trained), model.basis_spec.join(factors)


def hostile(model: TrainableModel, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights that make the most of the smallest difference."""
    noise = np.random.default_rng(5).normal(size=model.start.shape).astype(np.float32)
    match kind:
        case "scores overflow":
            return overflowing(model)
        case "last bit decides":
            return np.float32(1e30) * noise, model.basis()
        case "large basis":
            return noise, np.float32(1e20) * model.basis()
        case _:
            return 50 * noise, model.basis()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", ["head", "full"])
@pytest.mark.parametrize("kind", ["scores overflow", "last bit decides", "large", "large basis"])
@pytest.mark.parametrize(("target_words", "target"), [(1, OTHERS), (12, OTHERS), (12, 0), (4, 0), (4, 6)])
def test_one_unit_moves_the_sum_by_itself_alone(
    tiny_base: Path, dtype: str, stage: str, kind: str, target_words: int, target: int
) -> None:
    """Wherever the unit stands: a text as long as the others' goes into a batch with them, before or behind them."""
    compute = ComputeConfig(dtype=dtype, tokens_per_batch=64)
    plan = make_plan(adapter={"head_rounds": 1, "targets": ("query", "key", "value"), "top_layers": 1})
    model = TrainableModel(load_base(tiny_base, "tiny", compute), plan, compute)
    mechanism = PrivacyPlan.from_terms(plan.privacy, plan.steps)
    weights, basis = hostile(model, kind)

    def clipped_sum(present: list[int], drawn: list[int]) -> np.ndarray:
        parts = ([part[index] for index in present] for part in patients(target_words, target))
        data = TrainingSet.of(build_records(*parts), model, "patient")
        model.load(weights, basis)
        with recording(model) as gradients:
            units = np.searchsorted(present, drawn)
            return DpStep(mechanism, model, data, SeededSource(1)).clipped_sum(units, gradients, stage)

    everybody = list(range(OTHERS + 1))
    others = [index for index in everybody if index != target]
    without = clipped_sum(others, others)
    assert np.array_equal(clipped_sum(everybody, others), without), "present but not drawn"
    alone = clipped_sum(everybody, [target])
    assert np.array_equal(clipped_sum(everybody, everybody) - without, alone), "drawn"
    assert np.linalg.norm(alone.astype(float)) <= mechanism.clip_bound


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_batches_that_follow_the_draw_are_told_apart(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that this page guards against, planted: with padding up to the longest drawn record, others change."""
    monkeypatch.setattr(Features, "batches", Features.compact_batches)
    with pytest.raises(AssertionError, match="drawn"):
        test_one_unit_moves_the_sum_by_itself_alone(tiny_base, "float32", "full", "scores overflow", 12, OTHERS)


@pytest.mark.parametrize("target", [0, 30])
def test_rows_of_one_batch_do_not_shift_each_other(tmp_path: Path, target: int) -> None:
    """On some processors ten rows of 90 words computed to other last bits at each place of a batch, with two threads; a
    head of equal rows and a large basis make as much of it as clipping allows. Now every text keeps its place."""
    compute = ComputeConfig()
    task = {"labels": ("a", "b", "c"), "positive_label": "b", "max_tokens": 128}
    plan = make_plan(task=task, adapter={"rank": 2, "top_layers": 1, "targets": ("query", "value")})
    model = TrainableModel(
        load_base(make_tiny_base(tmp_path / "b", hidden=128, positions=128), "b", compute), plan, compute
    )
    mechanism = PrivacyPlan.from_terms(plan.privacy, plan.steps)
    generator = np.random.default_rng(3)
    texts = [" ".join(generator.choice(WORDS, size=90)) for _ in range(31)]
    trained = {name: np.zeros_like(value) for name, value in model.spec.split(model.start).items()}
    trained["head.weight"][:] = generator.normal(size=trained["head.weight"].shape[1])
    trained["head.bias"][:] = generator.normal(size=3)

    basis = np.float32(1e20) * model.basis()

    def clipped_sum(present: list[int]) -> np.ndarray:
        labels, names = [index % 3 for index in present], [f"{index:02d}" for index in present]
        data = TrainingSet.of(build_records([texts[index] for index in present], labels, names), model, "patient")
        model.load(model.spec.join(trained), basis)
        with recording(model) as gradients:
            units = np.arange(len(present))
            return DpStep(mechanism, model, data, SeededSource(1)).clipped_sum(units, gradients, "full")

    others = [index for index in range(31) if index != target]
    assert np.array_equal(clipped_sum(list(range(31))) - clipped_sum(others), clipped_sum([target]))
