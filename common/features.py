"""Rows of different lengths in one tensor, and padded batches cut from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Padded rows.

    Attributes:
        rows: Which rows of the features these are, shape `[B]`.
        values: Token ids `[B, L]` or hidden states `[B, L, H]`.
        mask: 1 where a token is, 0 where padding is, shape `[B, L]`.
    """

    rows: Rows
    values: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, repr=False)
class Features:
    """Rows of tokens, one after the other: token ids `[tokens]` or hidden states `[tokens, H]`.

    Attributes:
        values: All rows' tokens without padding.
        offsets: Row i is `values[offsets[i]:offsets[i + 1]]`, shape `[N + 1]`.
    """

    values: torch.Tensor
    offsets: Rows

    def __repr__(self) -> str:
        return f"Features({len(self)} rows)"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Rows:
        """Tokens of each row, shape `[N]`."""
        return np.diff(self.offsets)

    @property
    def megabytes(self) -> float:
        """Memory that the values take."""
        return self.values.numel() * self.values.element_size() / 1e6

    def batches(self, rows: Rows, tokens_per_batch: int) -> Iterator[Batch]:
        """Cut rows into padded batches, rows of like length together, each with at most so many padded tokens.

        Every row appears once. A row longer than the limit gets a batch of its own.
        """
        lengths = self.lengths[rows]
        order = np.argsort(lengths, kind="stable")[::-1]
        start = 0
        while start < len(order):
            longest = max(1, int(lengths[order[start]]))
            end = start + max(1, tokens_per_batch // longest)
            yield self._batch(rows[order[start:end]], longest)
            start = end

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """All rows one after the other; at least one part."""
        starts = np.cumsum([0, *(len(part.values) for part in parts)])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
        return cls(torch.cat([part.values for part in parts]), np.concatenate([*offsets, starts[-1:]]))

    def select(self, rows: Rows) -> Features:
        """A copy of some rows, in the given order."""
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths[rows])])
        starts = np.repeat(self.offsets[rows] - offsets[:-1], self.lengths[rows])
        places = torch.from_numpy(starts + np.arange(int(offsets[-1])))
        return Features(self.values[places.to(self.values.device)], offsets)

    def _batch(self, rows: Rows, longest: int) -> Batch:
        places = self.offsets[rows][:, None] + np.arange(longest)
        kept = np.arange(longest) < self.lengths[rows][:, None]
        index = torch.from_numpy(np.where(kept, places, 0)).to(self.values.device)
        mask = torch.from_numpy(kept).to(self.values.device)
        values = self.values[index]
        values = values * mask.reshape(mask.shape + (1,) * (values.dim() - 2)).to(values.dtype)
        return Batch(rows, values, mask.long())
