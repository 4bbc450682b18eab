"""The exported folder is read by plain PEFT, and by nobody else's code here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from common.base_model import load_base
from common.compute import ComputeConfig
from common.trainable import TrainableModel
from tests.plans import make_plan

TEXTS = ["the patient had a rash", "no fever"]


def batch_of(encoded: dict) -> dict:
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def plain_logits(base: Path, folder: Path, model: TrainableModel) -> np.ndarray:
    """What someone without Cloister computes from the folder."""
    encoder = PeftModel.from_pretrained(AutoModel.from_pretrained(base), str(folder)).eval()
    head, notes = load_file(folder / "head.safetensors"), json.loads((folder / "cloister.json").read_text())
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states
    hidden = torch.cat(hidden[-notes["pool_layers"] :], dim=-1)
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return (pooled @ head["weight"].T + head["bias"]).numpy()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("pool_layers", [1, 2])
@pytest.mark.parametrize("method", ["lora-b", "lora", "head", "bias"])
def test_plain_peft_computes_the_same(tiny_base: Path, tmp_path: Path, method: str, pool_layers: int) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    generator = torch.Generator().manual_seed(0)
    width = 16 * pool_layers
    save_file(
        {"mean": torch.randn(width, generator=generator), "matrix": torch.randn(width, width, generator=generator)},
        base / "feature_map.safetensors",
    )
    plan = make_plan(adapter={"method": method, "feature_scale": 3.0}, task={"pool_layers": pool_layers})
    model = TrainableModel(load_base(base, "tiny", ComputeConfig()), plan, ComputeConfig())
    prepared = model.prepare(TEXTS)
    weights = model.start + np.random.default_rng(0).normal(0, 0.3, model.start.shape)
    model.export("tiny", weights, model.basis(), tmp_path / "adapter")
    ours = model.logits(prepared.at(model.stage(2)), model.stage(2))
    assert np.abs(ours).max() > 0.01
    assert np.allclose(plain_logits(base, tmp_path / "adapter", model), ours, atol=1e-4)


def test_no_path_of_this_machine_is_in_the_folder(tiny_base: Path, tmp_path: Path) -> None:
    model = TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), make_plan(), ComputeConfig())
    model.export("tiny", model.start, model.basis(), tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "cloister.json",
        "head.safetensors",
    ]
    assert all(str(tiny_base.parent).encode() not in path.read_bytes() for path in (tmp_path / "adapter").iterdir())


def test_a_half_written_folder_is_replaced(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / ".adapter.partial").mkdir()
    (tmp_path / ".adapter.partial" / "rest").write_text("x")
    model = TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), make_plan(), ComputeConfig())
    model.export("tiny", model.start, model.basis(), tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "rest").exists()
    assert not (tmp_path / ".adapter.partial").exists()
