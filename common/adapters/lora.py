"""LoRA on a frozen encoder: where it sits, how it starts, which of its values are trained.

The update of a linear module is `alpha / rank * B A` (Hu et al. 2022, section 4.1). With method `lora-b` the matrix A
is fixed: its rows are orthonormal and come from the plan's public seed, so the update is linear in what is trained,
the mean of updates is the update of the mean, and noise enters it linearly (Sun et al. 2024, FFA-LoRA).
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from common.adapters.layers import adapted_layers, layer_stack
from common.adapters.vector import VectorSpec
from common.errors import ConfigError, Problem
from common.plan import AdapterConfig
from common.randomness import public_generator

Array = npt.NDArray[np.floating]


def attach(encoder: nn.Module, adapter: AdapterConfig, seed: int) -> PeftModel:
    """Put LoRA modules into the encoder, A orthonormal from the public seed, B zero, and mark what is trained.

    Raises:
        ConfigError: When no module of an adapted layer has one of the target names.
    """
    missing = missing_targets(encoder, adapter)
    if missing:
        raise ConfigError("the adapter does not fit the base model", missing)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # PEFT only divides by it
        target_modules=list(adapter.targets),
        layers_to_transform=list(adapted_layers(encoder, adapter)),
        layers_pattern=layer_stack(encoder).pattern,
        bias="all" if adapter.method == "bias" else "none",
        task_type="FEATURE_EXTRACTION",
    )
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that transformers has renamed; nothing for our users to act on.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = get_peft_model(encoder, config)
    _start(model, seed)
    _mark_trained(model, encoder, adapter)
    return model


def missing_targets(encoder: nn.Module, adapter: AdapterConfig) -> tuple[Problem, ...]:
    """Target names that no linear module of the encoder carries, each with the names there are."""
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in layer_stack(encoder).layers.named_modules()
        if isinstance(module, nn.Linear)
    }
    return tuple(
        Problem(
            "adapter.targets",
            f"`{target}` is not a linear module of the base",
            hint=f"it has {', '.join(sorted(linear))}",
        )
        for target in adapter.targets
        if target not in linear
    )


def orthonormal_rows(rows: int, columns: int, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """A random matrix with orthonormal rows, shape `[rows, columns]`, rows <= columns.

    Source: QR of a Gaussian matrix with the signs of R's diagonal moved into Q (Mezzadri 2007), uniform over all such.
    """
    q, r = np.linalg.qr(generator.standard_normal((columns, rows)))
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T, dtype=np.float32)


def _start(model: PeftModel, seed: int) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:
                rows, columns = parameter.shape
                start = orthonormal_rows(rows, columns, public_generator(seed, "lora A", plain_name(name)))
                parameter.copy_(torch.from_numpy(start))
            elif ".lora_B." in name:
                parameter.zero_()


def _mark_trained(model: PeftModel, encoder: nn.Module, adapter: AdapterConfig) -> None:
    layers = set(adapted_layers(encoder, adapter))
    stack = layer_stack(encoder)
    for name, parameter in model.named_parameters():
        in_reach = stack.index_of(plain_name(name)) in layers
        parameter.requires_grad_(in_reach and _is_trained(name, adapter))
        if parameter.requires_grad or ".lora_" in name:
            parameter.data = parameter.data.to(torch.float32)


def _is_trained(name: str, adapter: AdapterConfig) -> bool:
    match adapter.method:
        case "lora-b":
            return ".lora_B." in name
        case "lora":
            return ".lora_A." in name or ".lora_B." in name
        case "bias":
            return name.endswith(".bias")
        case "head":
            return False


def plain_name(name: str) -> str:
    """A parameter's name without what PEFT puts around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".default.", ".")


def refactor(weights: Array, basis: Array, trained: VectorSpec, frozen: VectorSpec) -> tuple[Array, Array]:
    """Rewrite each product B A by its singular value decomposition, so that A's rows are orthonormal again.

    Guarantees:
        Post-processing of public values: costs no privacy. Each product B A, and so the model, stays the same up to
        rounding. With `lora-b` the row space of A stays too, so only the scaling that the optimizers see changes.

    Edge cases: a product of zero keeps its factors.

    Args:
        weights: Trained values, shape `[d]`.
        basis: Values of the A matrices that are not trained, shape `[b]`; empty for `lora`.
        trained: Layout of `weights`.
        frozen: Layout of `basis`.
    """
    arrays = {**trained.split(weights), **frozen.split(basis)}
    for name in [name for name in arrays if ".lora_B." in name]:
        partner = name.replace(".lora_B.", ".lora_A.")
        arrays[name], arrays[partner] = _refactor_pair(arrays[name], arrays[partner])
    return trained.join(arrays), frozen.join(arrays)


def _refactor_pair(b: Array, a: Array) -> tuple[Array, Array]:
    if not b.any() or not a.any():
        return b, a
    rank = a.shape[0]
    u, singular, v = np.linalg.svd(b.astype(np.float64) @ a.astype(np.float64), full_matrices=False)
    signs = np.sign(np.sum(v[:rank] * a, axis=1))  # an SVD's signs are free: keep them close to the old A
    signs[signs == 0] = 1.0
    return u[:, :rank] * singular[:rank] * signs, v[:rank] * signs[:, None]
