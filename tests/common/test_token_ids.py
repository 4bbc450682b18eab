"""Any text comes to ids that the encoder can take, or to none."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from common.base_model import load_base
from common.compute import ComputeConfig
from common.token_ids import TextReader

TEXTS = ["the patient had a rash", "", "pain " * 50, "nobody knows this", "no fever"]


@pytest.fixture(scope="module")
def reader(tiny_base: Path) -> TextReader:
    return TextReader(load_base(tiny_base, "tiny", ComputeConfig()).tokenizer, 16, 45, "cpu")


def rows(reader: TextReader, texts: list[str]) -> list[list[int]]:
    features, _ = reader.read(texts)
    return [features.values[start:end].tolist() for start, end in pairwise(features.offsets)]


def test_plain_texts_come_to_what_the_tokenizer_gives(reader: TextReader) -> None:
    expected = reader.tokenizer(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert rows(reader, TEXTS) == expected
    assert not reader.read(TEXTS)[1].any()
    assert max(map(len, expected)) == 16


def test_an_id_without_an_embedding_loses_its_text_alone(reader: TextReader) -> None:
    number = reader.tokenizer.get_vocab()["rash"]
    narrow = dataclasses.replace(reader, embeddings=number)
    texts = ["the patient", "a rash", "had fever", "a"]
    highest = [max(row) for row in rows(reader, texts)]
    lost = narrow.read(texts)[1]
    assert lost.tolist() == [high >= number for high in highest]
    assert lost.any()
    assert not lost.all()
    assert [len(row) > 0 for row in rows(narrow, texts)] == (~lost).tolist()


class Longer:
    """A tokenizer that does not cut."""

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[5] * len(text.split()) for text in texts]}


def test_a_row_that_was_not_cut_loses_its_text_alone(reader: TextReader) -> None:
    broken = dataclasses.replace(reader, tokenizer=Longer())
    assert broken.read(TEXTS)[1].tolist() == [False, False, True, False, False]


def test_a_text_that_is_no_text_loses_itself_alone(reader: TextReader) -> None:
    """Half a surrogate pair, which compiled code does not take: an honest base, and one damaged record."""
    features, lost = reader.read(["no fever", "\ud800 fever", "no fever"])
    assert lost.tolist() == [False, True, False]
    assert np.diff(features.offsets).tolist()[1] == 0
    assert rows(reader, ["no fever", "\ud800 fever", "no fever"])[2] == rows(reader, ["no fever"])[0]


def test_no_texts_are_no_rows(reader: TextReader) -> None:
    features, lost = reader.read([])
    assert (len(features), lost.shape) == (0, (0,))
