"""Where LoRA sits, how it starts, and that refactoring keeps the model."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.adapters.lora import attach, orthonormal_rows, refactor
from common.adapters.vector import VectorSpec
from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import ConfigError
from common.plan import AdapterConfig
from common.randomness import public_generator


@given(st.integers(1, 6), st.integers(6, 12), st.integers(0, 5))
def test_rows_are_orthonormal(rows: int, columns: int, seed: int) -> None:
    a = orthonormal_rows(rows, columns, public_generator(seed, "test"))
    assert a.shape == (rows, columns)
    assert np.allclose(a @ a.T, np.eye(rows), atol=1e-6)


def test_every_module_gets_another_a(tiny_base: Path) -> None:
    model = attach(load_base(tiny_base, "tiny", ComputeConfig()).encoder, AdapterConfig(rank=2, top_layers=2), seed=1)
    matrices = [value.numpy(force=True) for name, value in model.named_parameters() if ".lora_A." in name]
    assert len(matrices) == 4
    assert all(not np.allclose(one, other) for i, one in enumerate(matrices) for other in matrices[:i])
    assert all(np.allclose(a @ a.T, np.eye(2), atol=1e-6) for a in matrices)


@pytest.mark.parametrize(
    ("method", "parts"), [("lora-b", {"lora_B"}), ("lora", {"lora_A", "lora_B"}), ("bias", {"bias"}), ("head", set())]
)
def test_only_the_top_layers_and_the_methods_own_values_are_trained(
    tiny_base: Path, method: str, parts: set[str]
) -> None:
    adapter = AdapterConfig(method=method, rank=2, top_layers=1)
    model = attach(load_base(tiny_base, "tiny", ComputeConfig()).encoder, adapter, seed=1)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert {part for name in trained for part in ("lora_A", "lora_B", "bias") if part in name} == parts
    assert all(".layer.2." in name for name in trained)


def test_unknown_targets_are_refused_with_those_there_are(tiny_base: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        attach(
            load_base(tiny_base, "tiny", ComputeConfig()).encoder, AdapterConfig(targets=("q_proj", "query")), seed=1
        )
    (problem,) = caught.value.problems
    assert "q_proj" in problem.rule
    assert "query" in problem.hint


SPECS = {
    "lora": (VectorSpec(("m.lora_A.weight", "m.lora_B.weight", "head"), ((2, 5), (4, 2), (3,))), VectorSpec((), ())),
    "lora-b": (VectorSpec(("m.lora_B.weight", "head"), ((4, 2), (3,))), VectorSpec(("m.lora_A.weight",), ((2, 5),))),
}


@pytest.mark.parametrize("method", ["lora", "lora-b"])
@given(seed=st.integers(0, 10_000))
def test_refactoring_keeps_the_product_and_makes_a_orthonormal(method: str, seed: int) -> None:
    trained, frozen = SPECS[method]
    generator = np.random.default_rng(seed)
    weights, basis = generator.normal(size=trained.dimension), generator.normal(size=frozen.dimension)
    before = {**trained.split(weights), **frozen.split(basis)}
    new_weights, new_basis = refactor(weights, basis, trained, frozen)
    after = {**trained.split(new_weights), **frozen.split(new_basis)}
    product = before["m.lora_B.weight"] @ before["m.lora_A.weight"]
    assert np.allclose(after["m.lora_B.weight"] @ after["m.lora_A.weight"], product, atol=1e-4)
    assert np.allclose(after["m.lora_A.weight"] @ after["m.lora_A.weight"].T, np.eye(2), atol=1e-5)
    assert np.allclose(after["head"], before["head"])


def test_refactoring_leaves_an_untrained_adapter_alone() -> None:
    trained, frozen = SPECS["lora-b"]
    basis = np.arange(10.0)
    weights, same = refactor(np.zeros(trained.dimension), basis, trained, frozen)
    assert not weights.any()
    assert np.array_equal(same, basis)
