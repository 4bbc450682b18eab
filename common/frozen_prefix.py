"""The layers below the lowest adapter never change, so their outputs are computed once and kept.

The encoder is seen through two shallow copies that share its parameters: the *prefix* (embeddings and the layers below
the cut) and the *suffix* (the layers above, fed with the prefix's output in place of embeddings). Masks are built by
the encoder's own code in both. `cut_is_exact` checks on random tokens that suffix(prefix(x)) is what the whole encoder
gives; an architecture for which this fails is trained uncut.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from common.adapters.layers import layer_stack

_TOLERANCE = 1e-4


class _GivenEmbeddings(nn.Module):
    """Stands where the embeddings were and passes on what it is given."""

    def forward(self, inputs_embeds: torch.Tensor | None = None, **_: object) -> torch.Tensor | None:
        return inputs_embeds


@dataclass(frozen=True)
class CutEncoder:
    """An encoder cut below layer `cut`; both parts share the parameters of the whole."""

    prefix: nn.Module
    suffix: nn.Module
    cut: int


def cut_encoder(encoder: nn.Module, cut: int) -> CutEncoder | None:
    """Cut the encoder below layer `cut`, or None where that cannot be done exactly.

    Args:
        encoder: A Hugging Face encoder with an `embeddings` child.
        cut: How many layers go into the prefix, at least 1.
    """
    if cut < 1 or not hasattr(encoder, "embeddings"):
        return None
    stack = layer_stack(encoder)
    lower = _with_layers(encoder, stack.path, list(stack.layers)[:cut])
    upper = _with_layers(encoder, stack.path, list(stack.layers)[cut:])
    upper._modules["embeddings"] = _GivenEmbeddings()
    parts = CutEncoder(lower, upper, cut)
    return parts if cut_is_exact(encoder, parts) else None


def _with_layers(encoder: nn.Module, path: str, layers: list[nn.Module]) -> nn.Module:
    """A shallow copy of the encoder with another list of layers at `path`; the original is left as it is."""
    root = _shallow(encoder)
    owner, parts = root, path.split(".")
    for part in parts[:-1]:
        child = _shallow(owner._modules[part])
        owner._modules[part] = child
        owner = child
    owner._modules[parts[-1]] = nn.ModuleList(layers)
    return root


def _shallow(module: nn.Module | None) -> nn.Module:
    if module is None:
        raise TypeError("a layer stack lies below an empty module")
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


@torch.no_grad()
def cut_is_exact(encoder: nn.Module, parts: CutEncoder) -> bool:
    """Whether the two parts in a row compute what the whole encoder does, on two padded rows of tokens."""
    device = next(encoder.parameters()).device
    ids = torch.arange(5, 17, device=device).reshape(2, 6) % int(encoder.config.vocab_size)  # type: ignore[union-attr,arg-type]
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], device=device)
    try:
        whole = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = parts.prefix(input_ids=ids, attention_mask=mask).last_hidden_state
        again = parts.suffix(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
    except (TypeError, AttributeError, RuntimeError, ValueError):
        return False
    kept = mask.unsqueeze(-1).bool()
    return torch.allclose(whole.masked_fill(~kept, 0), again.masked_fill(~kept, 0), atol=_TOLERANCE, rtol=_TOLERANCE)
