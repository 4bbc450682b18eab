"""Labelled sentences in the style of medical case reports, for a public starting point: nobody's data.

Does the sentence say that a named drug did a named harm? Templates and word lists are package data
(`phrases/case_reports.toml`). They were written from general knowledge of how abstracts of case reports read: stock
phrases, names of drugs and harms, and the rule that decides the label. No sentence was copied from a data set;
docs/decisions/0002-public-start.md says how that was checked.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.randomness import public_generator

PHRASES = Path(__file__).parent / "phrases" / "case_reports.toml"

_POSITIVE_SHARE = 0.35
_OPENING_SHARE = 0.12
_ENDING_SHARE = 0.25
_SHORTEST_WITH_ENDING = 40
_SLOT = re.compile(r"\{([A-Za-z]+)\d?\}")
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CaseReports:
    """Sentences, and what is known about each because it was written so.

    Attributes:
        texts: N sentences.
        labels: 1 where a drug did a harm, shape `[N]`.
        mentions: 1 where a drug, an event, a condition, a symptom is spoken of at all, shape `[N, 4]`.
    """

    texts: tuple[str, ...]
    labels: Labels
    mentions: Labels


@dataclass(frozen=True)
class Phrases:
    """The package data: templates by label, words by slot, and which slots count as which mention."""

    positive: Sequence[str]
    negative: Sequence[str]
    openings: Sequence[str]
    endings: Sequence[str]
    mentions: Mapping[str, Sequence[str]]
    slots: Mapping[str, Sequence[str]]


def write_sentences(count: int, seed: int) -> tuple[tuple[str, ...], Labels]:
    """Sentences with their labels only; see `write_reports`."""
    reports = write_reports(count, seed)
    return reports.texts, reports.labels


def write_reports(count: int, seed: int) -> CaseReports:
    """Write sentences, a third of them positive.

    Guarantees:
        The same seed gives the same sentences; a larger count adds sentences and changes none. Nothing is read but the
        package's own templates.

    Edge cases:
        A sentence may come twice, most often one without slots. A count of 0 gives empty arrays.

    Args:
        count: N, how many.
        seed: Public seed.
    """
    phrases, generator = load_phrases(), public_generator(seed, "case reports")
    written = [_Writer(phrases, generator).sentence() for _ in range(count)]
    kinds = len(phrases.mentions)
    return CaseReports(
        tuple(text for text, _, _ in written),
        np.array([label for _, label, _ in written], dtype=np.int64),
        np.array([mentions for _, _, mentions in written], dtype=np.int64).reshape(count, kinds),
    )


@functools.cache
def load_phrases() -> Phrases:
    """Templates and word lists from the package data."""
    return Phrases(**tomllib.loads(PHRASES.read_text(encoding="utf-8")))


def slots_of(template: str) -> frozenset[str]:
    """Names of the word slots of a template, without capitals and trailing digits."""
    return frozenset(name.lower() for name in _SLOT.findall(template))


class _Writer:
    """Writes one sentence; remembers its words, so that none fills two slots."""

    def __init__(self, phrases: Phrases, generator: np.random.Generator) -> None:
        self._phrases = phrases
        self._generator = generator
        self._used: set[str] = set()

    def sentence(self) -> tuple[str, int, list[int]]:
        """Text, label, mentions."""
        label = int(self._chance(_POSITIVE_SHARE))
        template = self._one_of(self._phrases.positive if label else self._phrases.negative)
        slots = slots_of(template)
        mentions = [int(not slots.isdisjoint(kind)) for kind in self._phrases.mentions.values()]
        return self._framed(self._filled(template)), label, mentions

    def _filled(self, template: str) -> str:
        numbered = _RANGE.sub(lambda match: self._number(int(match[1]), int(match[2])), template)
        return _SLOT.sub(lambda match: self._word(match[1]), numbered)

    def _word(self, slot: str) -> str:
        """A word for a slot, which may hold slots itself; with a capital when the slot has one."""
        choices = self._phrases.slots[slot.lower()]
        choice = self._one_of(choices)
        if choice in self._used:
            choice = self._one_of([other for other in choices if other not in self._used])
        if "{" not in choice:
            self._used.add(choice)
        word = self._filled(choice)
        return word[:1].upper() + word[1:] if slot[:1].isupper() else word

    def _framed(self, text: str) -> str:
        """Now and then with an opening or an ending, neither of which changes the label."""
        if self._chance(_OPENING_SHARE) and ":" not in text:
            text = f"{self._one_of(self._phrases.openings)}, {_uncapitalised(text)}"
        if self._chance(_ENDING_SHARE) and len(text) > _SHORTEST_WITH_ENDING:
            text = f"{text.removesuffix('.')} {self._one_of(self._phrases.endings)}."
        return text

    def _number(self, least: int, most: int) -> str:
        return str(int(self._generator.integers(least, most, endpoint=True)))

    def _chance(self, share: float) -> bool:
        return bool(self._generator.random() < share)

    def _one_of(self, choices: Sequence[str]) -> str:
        return choices[int(self._generator.integers(len(choices)))]


def _uncapitalised(text: str) -> str:
    """The text with a small first letter, unless it starts with an abbreviation such as SIADH."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
