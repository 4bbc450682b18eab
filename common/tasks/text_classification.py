"""One label for a text: mean pooling over tokens and one linear layer on top of an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class FeatureMap:
    """A fixed, public, affine map of pooled features: `(x - mean) @ matrix`.

    Attributes:
        mean: Shape `[F]`.
        matrix: Shape `[F, F]`.
    """

    mean: torch.Tensor
    matrix: torch.Tensor


@dataclass(frozen=True)
class Pooling:
    """How an encoder's outputs become what the head reads.

    Attributes:
        layers: The outputs of so many top layers are mean-pooled and put side by side.
        scale: The features are multiplied by this.
        feature_map: Applied before the scale; None leaves the features as they are.
    """

    layers: int = 1
    scale: float = 1.0
    feature_map: FeatureMap | None = None


@dataclass(frozen=True)
class EncoderPart:
    """An encoder, or the part of it above a cut.

    Attributes:
        module: Gives `last_hidden_state` of shape `[B, L, H]`.
        layers: Every layer of the whole encoder, in order; those below the cut do not run.
        given_hidden: Whether it is fed hidden states (above a cut) or token ids.
    """

    module: nn.Module
    layers: tuple[nn.Module, ...]
    given_hidden: bool


class MeanPoolClassifier(nn.Module):
    """Encoder, mask-aware mean over tokens, a fixed public map, one linear layer.

    The head starts at zero, so the first prediction is uniform whatever the seed.

    Args:
        encoder: A Hugging Face encoder, or its upper part.
        features: F, width of the pooled features: hidden size times pooled layers.
        labels: K, outputs of the head.
        pooling: How the encoder's outputs become features.
    """

    def __init__(self, encoder: EncoderPart, features: int, labels: int, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder.module
        self.head = nn.Linear(features, labels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.pooling = pooling
        self.layers = encoder.layers
        self.given_hidden = encoder.given_hidden

    def forward(self, values: torch.Tensor, mask: torch.Tensor, pooled: bool = False) -> torch.Tensor:
        """Logits `[B, K]`.

        Args:
            values: Token ids or hidden states, or with `pooled` the head's inputs as rows of one token, `[B, 1, F]`.
            mask: `[B, L]`.
            pooled: Skip the encoder.
        """
        inputs = values[:, 0] if pooled else self.head_inputs(values, mask)
        logits: torch.Tensor = self.head(inputs)
        return logits

    def head_inputs(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the head reads, `[B, F]`: pooled, mapped and scaled."""
        pooled = mean_pool(self._encode(values, mask), mask)
        if self.pooling.feature_map is not None:
            pooled = (pooled - self.pooling.feature_map.mean) @ self.pooling.feature_map.matrix
        return pooled * self.pooling.scale

    def _encode(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states of the pooled layers side by side, `[B, L, F]`."""
        key = "inputs_embeds" if self.given_hidden else "input_ids"
        with _recorded(self.layers) as recorded:
            last: torch.Tensor = self.encoder(**{key: values}, attention_mask=mask).last_hidden_state
        # What a suffix is given is the output of the layer below it, and may be among the pooled ones.
        below = [values] if self.given_hidden else []
        return torch.cat([*below, *recorded[:-1], last][-self.pooling.layers :], dim=-1)

    def plain_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight `[K, F]` and bias `[K]` of an equal head on plain pooled features: map and scale folded in."""
        weight, bias = self.head.weight.detach() * self.pooling.scale, self.head.bias.detach()
        if self.pooling.feature_map is not None:
            weight = weight @ self.pooling.feature_map.matrix.T
            bias = bias - weight @ self.pooling.feature_map.mean
        return weight.cpu().contiguous(), bias.cpu().contiguous()


@contextmanager
def _recorded(layers: Sequence[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """The outputs of the layers that run meanwhile, in order."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that the mask keeps, in float32: `[B, L, F]`, `[B, L]` -> `[B, F]`."""
    weights = mask.unsqueeze(-1).to(torch.float32)
    return (hidden.to(torch.float32) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
