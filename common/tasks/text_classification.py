"""One label for a text: mean pooling over tokens and one linear layer on top of an encoder."""

from __future__ import annotations

import torch
from torch import nn


class MeanPoolClassifier(nn.Module):
    """Encoder, mask-aware mean over tokens, a public scale, one linear layer.

    The head starts at zero, so the first prediction is uniform whatever the seed.

    Args:
        encoder: Gives `last_hidden_state` of shape `[B, L, H]`.
        hidden_size: H.
        labels: K, outputs of the head.
        feature_scale: Pooled features are multiplied by this before the head.
        given_hidden: Whether the encoder is fed hidden states (a suffix) or token ids.
    """

    def __init__(
        self, encoder: nn.Module, hidden_size: int, labels: int, feature_scale: float, *, given_hidden: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(hidden_size, labels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.feature_scale = feature_scale
        self.given_hidden = given_hidden

    def forward(self, values: torch.Tensor, mask: torch.Tensor, pooled: bool = False) -> torch.Tensor:
        """Logits `[B, K]`.

        Args:
            values: Token ids or hidden states, or with `pooled` the pooled features as rows of one token, `[B, 1, H]`.
            mask: `[B, L]`.
            pooled: Skip the encoder.
        """
        hidden = values if pooled else self.encode(values, mask)
        logits: torch.Tensor = self.head(mean_pool(hidden, mask) * self.feature_scale)
        return logits

    def encode(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states, `[B, L, H]`."""
        key = "inputs_embeds" if self.given_hidden else "input_ids"
        hidden: torch.Tensor = self.encoder(**{key: values}, attention_mask=mask).last_hidden_state
        return hidden


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that the mask keeps, in float32: `[B, L, H]`, `[B, L]` -> `[B, H]`."""
    weights = mask.unsqueeze(-1).to(torch.float32)
    return (hidden.to(torch.float32) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
