"""The pretrained base: loaded frozen, never with code of its own; `common.base_files` finds and checks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from common.base_files import FEATURE_MAP_NAME, identify_base
from common.compute import ComputeConfig
from common.errors import ConfigError, IntegrityError
from common.plan import BaseIdentity
from common.tasks.text_classification import FeatureMap

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Base:
    """A loaded base: a frozen encoder, its tokenizer, and what it is called."""

    identity: BaseIdentity
    encoder: nn.Module
    tokenizer: PreTrainedTokenizerBase
    hidden_size: int
    feature_map: FeatureMap | None = None


def torch_dtype(compute: ComputeConfig) -> torch.dtype:
    """The frozen base's number format; `common.compute` itself is read where torch is not loaded."""
    return DTYPES[compute.dtype]


def load_base(folder: Path, name: str, compute: ComputeConfig) -> Base:
    """Load an encoder and its tokenizer, frozen, with dropout at 0.

    Guarantees:
        Nothing is fetched from a network and no code from the folder is run. Only safetensors weights are read.

    Raises:
        ConfigError: When the folder's architecture or tokenizer is unknown to the installed transformers.
        IntegrityError: When the weights are damaged.
    """
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        encoder = _load_encoder(folder, _without_dropout(config))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except SafetensorError:
        raise IntegrityError(f"weights of base model {name} are damaged", hint="copy the folder again") from None
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"base model {name} cannot be loaded: {type(error).__name__}",
            hint="it must be a Hugging Face encoder folder with config.json, *.safetensors and a tokenizer",
        ) from error
    encoder.requires_grad_(False).to(torch_dtype(compute)).to(compute.device)
    return Base(identify_base(folder, name), encoder, tokenizer, int(config.hidden_size), _feature_map(folder, compute))


def _feature_map(folder: Path, compute: ComputeConfig) -> FeatureMap | None:
    """The fixed map of pooled features that a base may come with; its digest is part of the base's identity."""
    path = folder / FEATURE_MAP_NAME
    if not path.is_file():
        return None
    tensors = load_file(path, device=compute.device)
    return FeatureMap(tensors["mean"], tensors["matrix"])


def _load_encoder(folder: Path, config: Any) -> nn.Module:  # noqa: ANN401 - as below
    settings = {
        "config": config,
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
        # On short texts the backward pass of torch's fused attention takes twice as long as plain matrix products.
        "attn_implementation": "eager",
    }
    try:
        # Ours is mean pooling; an unused pooler may even be missing in the file and would then start at random.
        encoder: nn.Module = AutoModel.from_pretrained(folder, add_pooling_layer=False, **settings)
    except TypeError:
        encoder = AutoModel.from_pretrained(folder, **settings)  # an architecture that has no such choice
    return encoder


def _without_dropout(config: Any) -> Any:  # noqa: ANN401 - transformers' configs share no useful type
    """Set every dropout rate to 0: noise and clipping already regularise, and its random numbers are slow."""
    for key, value in vars(config).items():
        if "dropout" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config
