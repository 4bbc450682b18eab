"""The result as files: an ordinary PEFT folder, with the head beside it.

    adapter_config.json, adapter_model.safetensors   what `PeftModel.from_pretrained` loads, no Cloister needed
    head.safetensors                                 `weight` [K, H] and `bias` [K] of the linear head
    cloister.json                                    labels, pooling, feature scale, longest text
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file

from common.files import write_durably
from common.trainable import TrainableModel

Floats = npt.NDArray[np.floating]


def export_adapter(model: TrainableModel, base_name: str, weights: Floats, basis: Floats, folder: Path) -> None:
    """Write the trained values as a PEFT folder; the folder appears whole or not at all.

    Args:
        model: The model that the values belong to; they are left loaded in it.
        base_name: What the adapter's config calls its base (never a path of this machine).
        weights: Trained values, shape `[d]`.
        basis: Fixed A matrices, shape `[b]`, or empty for those of the plan's seed.
        folder: Target; must not exist yet.
    """
    model.load(weights.astype(np.float32), basis.astype(np.float32))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.peft.peft_config["default"].base_model_name_or_path = base_name
    model.peft.save_pretrained(str(partial), save_embedding_layers=False)
    (partial / "README.md").unlink(missing_ok=True)  # PEFT's template is empty; model-card.md is the real one
    head = model.module.head
    save_file({"weight": head.weight.detach().cpu(), "bias": head.bias.detach().cpu()}, partial / "head.safetensors")
    write_durably(partial / "cloister.json", json.dumps(_reading_notes(model), indent=2).encode())
    partial.rename(folder)


def _reading_notes(model: TrainableModel) -> dict[str, object]:
    task = model.plan.task
    return {
        "task": task.kind,
        "labels": list(task.labels),
        "pooling": "mean",
        "feature_scale": model.plan.adapter.feature_scale,
        "max_tokens": task.max_tokens,
    }
