"""Rows of different lengths in one tensor, and padded batches cut from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]

_FINE_RUNGS = 32


@dataclass(frozen=True)
class Batch:
    """Padded rows.

    Attributes:
        rows: Which rows of the features are here, shape `[k]`.
        places: Where in the batch each of them stands, shape `[k]`; the other places, up to B, are filling.
        values: Token ids `[B, L]` or hidden states `[B, L, H]`.
        mask: 1 where a token is, 0 where padding is, shape `[B, L]`.
    """

    rows: Rows
    places: Rows
    values: torch.Tensor
    mask: torch.Tensor

    def alone(self, index: int) -> Batch:
        """One row at its own place in a batch of the same shape, with filling everywhere else."""
        place = int(self.places[index])
        values, mask = torch.zeros_like(self.values), torch.zeros_like(self.mask)
        values[place], mask[place] = self.values[place], self.mask[place]
        mask[:, 0] |= mask.sum(dim=1) == 0
        return Batch(self.rows[index : index + 1], self.places[index : index + 1], values, mask)


@dataclass(frozen=True, repr=False)
class Features:
    """Rows of tokens, one after the other: token ids `[tokens]` or hidden states `[tokens, H]`.

    Attributes:
        values: All rows' tokens without padding.
        offsets: Row i is `values[offsets[i]:offsets[i + 1]]`, shape `[N + 1]`.
        keys: A hash of each row's own text, shape `[N]`; decides its place in a batch. Needed by `batches` alone.
        longest: No row is longer, and none is padded beyond; a public constant, which may end a model's positions.
    """

    values: torch.Tensor
    offsets: Rows
    keys: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    longest: int = 1 << 30

    def __repr__(self) -> str:
        return f"Features({len(self)} rows)"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Rows:
        """Tokens of each row, shape `[N]`."""
        return np.diff(self.offsets)

    def batches(self, rows: Rows, tokens_per_batch: int) -> Iterator[Batch]:
        """Cut rows into batches of public shapes, for everything that touches private rows.

        Guarantees:
            A batch's shape depends on nothing but the rung that its rows' own lengths fall on, every batch of a rung
            has the same shape, and a row always stands at the same place, which follows from its own text: other
            places are filled with rows of one empty token. So what a row computes to does not depend on which other
            rows are there. Were padding, number or place of rows to follow from the draw, a coordinator could choose
            weights under which one patient changes the gradients of all others: an attention mask that overflows, or a
            softmax that hangs on the last bit, which differs from place to place on some processors.

        Edge cases: No rows, no batches. A row longer than `tokens_per_batch` gets a batch of its own.

        Args:
            rows: Row numbers, shape `[k]`; every one appears once.
            tokens_per_batch: Padded tokens of a batch; a public constant.

        Raises:
            ValueError: When the rows have no keys.
        """
        if len(self.keys) != len(self):
            raise ValueError("rows without keys have no places of their own")
        rungs = np.array([min(rung(int(length)), self.longest) for length in self.lengths[rows]], dtype=np.int64)
        for width in np.unique(rungs)[::-1].tolist():
            size = max(1, tokens_per_batch // width)
            chosen = rows[rungs == width]
            places = self.keys[chosen] % size
            turns = _turns(places)
            for turn in range(turns.max(initial=-1) + 1):
                yield self._batch(chosen[turns == turn], places[turns == turn], width, size)

    def compact_batches(self, rows: Rows, tokens_per_batch: int) -> Iterator[Batch]:
        """Cut rows into batches without waste, rows of like length together; for public rows, or without privacy.

        Every row appears once. A row longer than the limit gets a batch of its own.
        """
        lengths = self.lengths[rows]
        order = np.argsort(lengths, kind="stable")[::-1]
        start = 0
        while start < len(order):
            longest = max(1, int(lengths[order[start]]))
            end = start + max(1, tokens_per_batch // longest)
            chosen = rows[order[start:end]]
            yield self._batch(chosen, np.arange(len(chosen)), longest, len(chosen))
            start = end

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """All rows one after the other; at least one part."""
        starts = np.cumsum([0, *(len(part.values) for part in parts)])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
        values = torch.cat([part.values for part in parts])
        keys = np.concatenate([part.keys for part in parts])
        return cls(values, np.concatenate([*offsets, starts[-1:]]), keys, max(part.longest for part in parts))

    def select(self, rows: Rows) -> Features:
        """A copy of some rows, in the given order."""
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths[rows])])
        starts = np.repeat(self.offsets[rows] - offsets[:-1], self.lengths[rows])
        places = torch.from_numpy(starts + np.arange(int(offsets[-1])))
        keys = self.keys[rows] if len(self.keys) else self.keys
        return Features(self.values[places.to(self.values.device)], offsets, keys, self.longest)

    def _batch(self, rows: Rows, places: Rows, width: int, size: int) -> Batch:
        tokens = np.zeros((size, width), dtype=np.int64)
        kept = np.zeros((size, width), dtype=np.bool_)
        tokens[places] = self.offsets[rows][:, None] + np.arange(width)
        kept[places] = np.arange(width) < self.lengths[rows][:, None]
        index = torch.from_numpy(np.where(kept, tokens, 0)).to(self.values.device)
        mask = torch.from_numpy(kept).to(self.values.device)
        values = self.values[index]
        values = values * mask.reshape(mask.shape + (1,) * (values.dim() - 2)).to(values.dtype)
        mask[~mask.any(dim=1), 0] = True  # a row without any token would be NaN in attention
        return Batch(rows, places, values, mask.long())


def text_keys(values: Rows, offsets: Rows) -> Rows:
    """A hash of each row's token ids, shape `[N]`: the same for a text wherever it stands, and never negative."""
    rows = (values[start:end].tobytes() for start, end in pairwise(offsets))
    digests = [int.from_bytes(hashlib.blake2b(row, digest_size=7).digest(), "big") for row in rows]
    return np.array(digests, dtype=np.int64)


def _turns(places: Rows) -> Rows:
    """For each row, how many rows before it want the same place: the batch that it goes into."""
    order = np.argsort(places, kind="stable")
    ranked = places[order]
    first = np.searchsorted(ranked, ranked, side="left")
    turns = np.empty(len(places), dtype=np.int64)
    turns[order] = np.arange(len(places)) - first
    return turns


def rung(length: int) -> int:
    """The padded length of a row: 1, then 8, 16, 24, 32, 48, 64, 96, 128 and so on; a function of its own length."""
    if length <= 1:
        return 1
    if length <= _FINE_RUNGS:
        return -(-length // 8) * 8
    power = 1 << (length - 1).bit_length()
    return power * 3 // 4 if length <= power * 3 // 4 else power
