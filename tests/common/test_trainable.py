"""The model that both sides compute with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import ConfigError
from common.trainable import TrainableModel
from tests.plans import make_plan

TEXTS = ["the patient had a rash", "no fever", "pain after drug treatment was mild and resolved"]
NOTHING = np.zeros(0, dtype=np.float32)


def build(folder: Path, **changes: object) -> TrainableModel:
    return TrainableModel(load_base(folder, "tiny", ComputeConfig()), make_plan(**changes), ComputeConfig())


def moved(model: TrainableModel, scale: float = 0.3) -> np.ndarray:
    return model.start + np.random.default_rng(0).normal(0, scale, model.start.shape).astype(np.float32)


def plain_logits(model: TrainableModel, text: str) -> torch.Tensor:
    """The whole encoder on one text, mean pooled by hand: nothing cut, nothing padded, nothing kept."""
    ids = torch.tensor([model.tokenizer(text, truncation=True, max_length=model.plan.task.max_tokens)["input_ids"]])
    with torch.no_grad():
        states = model.peft.get_base_model()(input_ids=ids, output_hidden_states=True).hidden_states
        pooled = torch.cat([state[0].mean(0) for state in states[-model.plan.task.pool_layers :]])
        return model.module.head(pooled * model.plan.adapter.feature_scale)


@pytest.mark.parametrize("pool_layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("method", "top_layers"), [("lora-b", 0), ("lora-b", 1), ("lora", 2), ("head", 1), ("bias", 1)]
)
def test_kept_features_give_the_logits_of_the_whole_model(
    tiny_base: Path, method: str, top_layers: int, pool_layers: int
) -> None:
    adapter = {"method": method, "top_layers": top_layers, "feature_scale": 2.0}
    model = build(tiny_base, adapter=adapter, task={"pool_layers": pool_layers})
    prepared = model.prepare(TEXTS)
    model.load(moved(model), NOTHING)
    logits = model.logits(prepared.at(model.stage(2)), model.stage(2))
    expected = torch.stack([plain_logits(model, text) for text in TEXTS])
    assert np.allclose(logits, expected.numpy(), atol=1e-5)
    assert model.prefix_is_cached == (top_layers > 0)


def test_more_pooled_layers_than_there_are_is_refused(tiny_base: Path) -> None:
    with pytest.raises(ConfigError, match="at most the base's 3 layers"):
        build(tiny_base, task={"pool_layers": 4})


def test_head_stage_uses_the_untrained_base_even_after_another_site_trained(tiny_base: Path) -> None:
    model = build(tiny_base, adapter={"head_rounds": 1})
    before = model.prepare(TEXTS).at("head").values
    model.load(moved(model), NOTHING)
    assert torch.equal(model.prepare(TEXTS).at("head").values, before)
    assert np.array_equal(model.read(), moved(model))


@pytest.mark.parametrize(("method", "size"), [("lora-b", 2 * 16 * 2), ("lora", 4 * 16 * 2), ("head", 0)])
def test_vector_holds_the_trained_values_and_no_others(tiny_base: Path, method: str, size: int) -> None:
    model = build(tiny_base, adapter={"method": method})
    assert model.spec.dimension == size + 2 * 16 + 2
    assert sum(value.numel() for value in model.module.parameters() if value.requires_grad) == model.spec.dimension
    assert model.groups["head"] == slice(size, size + 34)


def test_start_is_the_base_itself_and_the_same_for_everyone(tiny_base: Path) -> None:
    one, other = build(tiny_base), build(tiny_base)
    assert np.array_equal(one.start, other.start)
    assert np.array_equal(one.basis(), other.basis())
    assert not one.start.any()
    assert not np.array_equal(one.basis(), build(tiny_base, seed=2).basis())


def test_load_and_read_are_inverse(tiny_base: Path) -> None:
    model = build(tiny_base)
    weights, basis = moved(model), model.basis()[::-1].copy()
    model.load(weights, basis)
    assert np.array_equal(model.read(), weights)
    assert np.array_equal(model.basis(), basis)
    with pytest.raises(ValueError, match="does not fit"):
        model.load(weights[1:], basis)


def test_stage_follows_head_rounds(tiny_base: Path) -> None:
    model = build(tiny_base, adapter={"head_rounds": 1})
    assert [model.stage(number) for number in (1, 2)] == ["head", "full"]
    assert model.stages == ("head", "full")
    assert model.active("head") == model.groups["head"]
    assert build(tiny_base, adapter={"method": "head"}).stages == ("head",)
