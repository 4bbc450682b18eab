"""The pretrained base: loaded frozen, never with code of its own; `common.base_files` finds and checks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from common.base_config import EncoderShape, read_encoder_shape
from common.base_files import FEATURE_MAP_NAME, check_index, identify_base
from common.base_tokenizer import check_ids, load_tokenizer
from common.compute import ComputeConfig
from common.errors import ConfigError, IntegrityError
from common.plan import BaseIdentity
from common.tasks.text_classification import FeatureMap

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Base:
    """A loaded base.

    Attributes:
        identity: What it is called, and its files' hashes.
        encoder: Frozen.
        tokenizer: Gives no id without an embedding.
        hidden_size: H.
        positions: So many tokens a text may have.
        feature_map: What pooled features go through; None leaves them as they are.
    """

    identity: BaseIdentity
    encoder: nn.Module
    tokenizer: PreTrainedTokenizerFast
    hidden_size: int
    positions: int
    feature_map: FeatureMap | None = None


def torch_dtype(compute: ComputeConfig) -> torch.dtype:
    """The frozen base's number format; `common.compute` itself is read where torch is not loaded."""
    return DTYPES[compute.dtype]


def load_base(folder: Path, name: str, compute: ComputeConfig) -> Base:
    """Load an encoder and its tokenizer, frozen, with dropout at 0.

    Guarantees:
        Nothing is fetched from a network and no code from the folder is run. Only safetensors weights are read, and no
        file outside the folder (`read_encoder_shape`, `load_tokenizer`, `check_index`). The architecture is one that
        keeps records apart, and the tokenizer takes every text.

    Raises:
        ConfigError: When the folder's architecture or tokenizer is none that a base may have.
        IntegrityError: When the weights are damaged.
    """
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    identity = identify_base(folder, name)
    try:
        check_index(folder, identity)
        shape = read_encoder_shape(folder)
        tokenizer = load_tokenizer(folder)
        check_ids(tokenizer, shape.config.vocab_size)
        encoder = _load_encoder(folder, shape)
        feature_map = _feature_map(folder, compute)
    except SafetensorError:
        raise IntegrityError(f"weights of base model {name} are damaged", hint="copy the folder again") from None
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"base model {name} cannot be loaded: {type(error).__name__}",
            hint="it must be a Hugging Face encoder folder with config.json, *.safetensors and tokenizer.json",
        ) from error
    encoder.requires_grad_(False).to(torch_dtype(compute)).to(compute.device)
    return Base(identity, encoder, tokenizer, int(shape.config.hidden_size), shape.positions, feature_map)


def _feature_map(folder: Path, compute: ComputeConfig) -> FeatureMap | None:
    """The fixed map of pooled features that a base may come with; its digest is part of the base's identity."""
    path = folder / FEATURE_MAP_NAME
    if not path.is_file():
        return None
    tensors = load_file(path, device=compute.device)
    return FeatureMap(tensors["mean"], tensors["matrix"])


def _load_encoder(folder: Path, shape: EncoderShape) -> nn.Module:
    # Ours is mean pooling; an unused pooler may even be missing in the file and would then start at random.
    pooler = {"add_pooling_layer": False} if shape.architecture.has_pooler else {}
    encoder: nn.Module = shape.architecture.model.from_pretrained(
        folder,
        config=shape.config,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        # On short texts the backward pass of torch's fused attention takes twice as long as plain matrix products.
        attn_implementation="eager",
        **pooler,
    )
    return encoder
