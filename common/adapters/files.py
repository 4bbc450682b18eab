"""The result as files: an ordinary PEFT folder, with the head beside it.

adapter_config.json, adapter_model.safetensors   what `PeftModel.from_pretrained` loads, no Cloister needed
head.safetensors                                 `weight` [K, F], `bias` [K] of the head on mean-pooled features
cloister.json                                    labels, pooling, longest text
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file

from common.files import write_durably


def export_adapter(
    peft: PeftModel, head: tuple[torch.Tensor, torch.Tensor], base_name: str, notes: Mapping[str, object], folder: Path
) -> None:
    """Write the values that are loaded now as a PEFT folder; the folder appears whole or not at all.

    Args:
        peft: Encoder with its adapter.
        head: Weight `[K, F]` and bias `[K]` of the linear head on plain pooled features.
        base_name: What the adapter's config calls its base (never a path of this machine).
        notes: What a reader must know to use both: labels, pooling, longest text.
        folder: Target; must not exist yet.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    peft.peft_config["default"].base_model_name_or_path = base_name
    peft.save_pretrained(str(partial), save_embedding_layers=False)
    (partial / "README.md").unlink(missing_ok=True)  # PEFT's template is empty; model-card.md is the real one
    save_file({"weight": head[0], "bias": head[1]}, partial / "head.safetensors")
    write_durably(partial / "cloister.json", json.dumps(dict(notes), indent=2).encode())
    partial.rename(folder)
