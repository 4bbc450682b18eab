"""From texts to token ids, whatever the texts: one that the tokenizer fails on has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerFast

from common.features import Features, text_keys
from common.row_failures import is_failure


@dataclass(frozen=True)
class TextReader:
    """A base's tokenizer, and what its encoder can take.

    Attributes:
        tokenizer: Of the base.
        most_tokens: Of a text; longer ones are cut.
        embeddings: Ids from 0 below this have one.
        device: Where the ids are wanted.
    """

    tokenizer: PreTrainedTokenizerFast
    most_tokens: int
    embeddings: int
    device: str

    def read(self, texts: Sequence[str]) -> tuple[Features, npt.NDArray[np.bool_]]:
        """Token ids of the texts, and which of them the tokenizer failed on, shape `[N]`.

        Guarantees:
            Never fails; what a text comes to depends on that text alone. No row is longer than `most_tokens`, and none
            has an id without an embedding: a text that comes to such ids counts as one that the tokenizer failed on.
        """
        together = self._token_ids(texts)
        given = [[row] for row in together] if together is not None else [self._token_ids([text]) for text in texts]
        rows = [part[0] if part else [] for part in given]
        return self._as_features(rows), np.array([part is None for part in given], dtype=np.bool_)

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]] | None:
        try:
            encoded = self.tokenizer(list(texts), truncation=True, max_length=self.most_tokens, padding=False)
            ids: list[list[int]] = encoded["input_ids"]
        except BaseException as error:
            if not is_failure(error):
                raise
            return None
        return ids if len(ids) == len(texts) and all(self._fits(row) for row in ids) else None

    def _fits(self, row: Sequence[int]) -> bool:
        return len(row) <= self.most_tokens and max(row, default=0) < self.embeddings

    def _as_features(self, rows: Sequence[Sequence[int]]) -> Features:
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int64, count=int(offsets[-1]))
        return Features(torch.from_numpy(flat).to(self.device), offsets, text_keys(flat, offsets), self.most_tokens)
