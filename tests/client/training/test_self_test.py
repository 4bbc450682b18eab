from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule

from client.training import self_test
from client.training.self_test import check_gradients
from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import IntegrityError
from common.trainable import TrainableModel
from tests.plans import make_plan


def build(folder: Path, **changes: object) -> TrainableModel:
    return TrainableModel(load_base(folder, "tiny", ComputeConfig()), make_plan(**changes), ComputeConfig())


@pytest.mark.parametrize("method", ["lora-b", "lora", "head", "bias"])
def test_hooks_agree_with_the_loop_and_nothing_is_changed(tiny_base: Path, method: str) -> None:
    model = build(tiny_base, adapter={"method": method})
    before = model.read()
    assert check_gradients(model) < 1e-3
    assert np.array_equal(model.read(), before)
    assert all(tensor.grad is None for tensor in model.module.parameters())


def test_a_run_that_warms_the_head_up_is_tested_in_both_stages(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(self_test, "_relative_error", lambda _model, stage, _generator: seen.append(stage) or 0.0)
    check_gradients(build(tiny_base, adapter={"head_rounds": 1}))
    assert sorted(seen) == ["full", "head"]


def test_a_wrong_rule_for_one_layer_is_found(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = GradSampleModule.GRAD_SAMPLERS[torch.nn.Linear]

    def wrong(layer: torch.nn.Module, activations: list[torch.Tensor], backprops: torch.Tensor) -> dict:
        return {tensor: 1.01 * value for tensor, value in right(layer, activations, backprops).items()}

    monkeypatch.setitem(GradSampleModule.GRAD_SAMPLERS, torch.nn.Linear, wrong)
    model = build(tiny_base)
    before = model.read()
    with pytest.raises(IntegrityError, match="differ from a plain loop"):
        check_gradients(model)
    assert np.array_equal(model.read(), before)


def test_an_error_that_is_no_number_is_a_failure(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "_relative_error", lambda *_: float("nan"))
    with pytest.raises(IntegrityError):
        check_gradients(build(tiny_base))
