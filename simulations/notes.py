"""Synthetic clinical notes: does a note describe a harmful reaction to a drug that the patient takes?

Nobody's data. Patients have one to eight notes, some patients react more easily than others, hospitals differ in case
mix, in how often reactions occur and in how they write, and hospitals label some notes wrongly. The public validation
and test sets are mixed from all kinds of hospitals and labelled without error. Phrases are in `notes_grammar`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from common.config import StrictConfig
from common.files import write_durably
from common.randomness import public_generator
from common.records.records import Records, build_records
from simulations.notes_grammar import (
    ABBREVIATIONS,
    COMMON,
    FILLER,
    ROUTINE,
    SLOTS,
    SPECIALTIES,
    TELLING,
    Specialty,
)

LABELS = ("no_reaction", "reaction")
POSITIVE_LABEL = "reaction"

_MOST_NOTES = 8
_LOOKALIKE_SHARE = 0.5
_CONCENTRATION = 3.0
_SLOT = re.compile(r"\{(\w+)\}")
_ABBREVIATED = re.compile(r"\b(" + "|".join(sorted(ABBREVIATIONS, key=len, reverse=True)) + r")\b")

Choice = TypeVar("Choice")

NoteRow = tuple[str, str, str]
"""Patient id, text, label name: a row of a data file."""


class NotesConfig(StrictConfig):
    """How many notes to write, and how well they are labelled."""

    hospitals: Annotated[int, Field(ge=1)] = Field(4, description="virtual hospitals, of four kinds in turn")
    patients_per_hospital: Annotated[int, Field(ge=2)] = Field(
        400, description="each with 1 to 8 notes, 3.3 on average"
    )
    label_noise: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.05, description="share of hospital notes labelled wrongly"
    )
    validation_patients: Annotated[int, Field(ge=2)] = Field(150, description="public, labelled without error")
    test_patients: Annotated[int, Field(ge=2)] = Field(300, description="public, labelled without error")


@dataclass(frozen=True)
class HospitalProfile:
    """What makes one hospital differ from another.

    Args:
        specialty: Key of `SPECIALTIES`; most patients are of this kind.
        focus: Share of its patients that are; the others may be of any.
        prevalence: Share of notes that describe a reaction.
        abbreviations: Chance of each abbreviable word to be abbreviated.
        typos: Chance of each word to have two letters swapped.
    """

    specialty: str
    focus: float
    prevalence: float
    abbreviations: float
    typos: float


PROFILES = (
    HospitalProfile("cardiology", focus=0.8, prevalence=0.25, abbreviations=0.1, typos=0.01),
    HospitalProfile("oncology", focus=0.9, prevalence=0.5, abbreviations=0.3, typos=0.01),
    HospitalProfile("psychiatry", focus=0.8, prevalence=0.35, abbreviations=0.0, typos=0.04),
    HospitalProfile("infection", focus=0.7, prevalence=0.3, abbreviations=0.5, typos=0.02),
)


def generate_notes(config: NotesConfig, seed: int) -> tuple[list[Records], Records, Records]:
    """Write all notes of a simulation.

    Guarantees:
        The same config and seed give the same notes. More patients or more hospitals add notes and change none; the
        label noise changes labels only.

    Returns:
        The records of each hospital, the public validation set, and the public test set.
    """
    rows = generate_rows(config, seed)
    parts = {name: note_records(part) for name, part in rows.items()}
    validation, test = parts.pop("validation"), parts.pop("test")
    return list(parts.values()), validation, test


def generate_rows(config: NotesConfig, seed: int) -> dict[str, list[NoteRow]]:
    """The same notes as rows to look at, by part: hospital-1 to hospital-n, validation, test."""
    parts = {}
    for number in range(config.hospitals):
        profile = PROFILES[number % len(PROFILES)]
        name = f"hospital-{number + 1}"
        clean = _part_rows(name, [profile] * config.patients_per_hospital, seed)
        parts[name] = _with_label_noise(clean, config.label_noise, public_generator(seed, "notes", name, "labels"))
    for name, patients in (("validation", config.validation_patients), ("test", config.test_patients)):
        parts[name] = _part_rows(name, [PROFILES[patient % len(PROFILES)] for patient in range(patients)], seed)
    return parts


def note_records(rows: Sequence[NoteRow]) -> Records:
    """Rows as records; label indices follow `LABELS`."""
    ids, texts, labels = zip(*rows, strict=True)
    return build_records(texts, [LABELS.index(label) for label in labels], ids)


def write_notes(folder: Path, config: NotesConfig, seed: int) -> tuple[Path, ...]:
    """Write one CSV file a part into an existing folder, with the columns patient_id, text and label.

    Returns:
        The files, in the order of `generate_rows`.
    """
    paths = []
    for name, rows in generate_rows(config, seed).items():
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("patient_id", "text", "label"), *rows])
        paths.append(folder / f"{name}.csv")
        write_durably(paths[-1], table.getvalue().encode("utf-8"))
    return tuple(paths)


# --- patients ------------------------------------------------------------------------------------------------------


def _part_rows(part: str, profiles: Sequence[HospitalProfile], seed: int) -> list[NoteRow]:
    """All notes of a part; every patient has a random stream of their own, so more patients change none."""
    rows: list[NoteRow] = []
    for number, profile in enumerate(profiles, start=1):
        patient = _Writer(profile, public_generator(seed, "notes", part, number))
        rows += [(f"{part}/{number}", text, label) for text, label in patient.notes()]
    return rows


def _with_label_noise(rows: Sequence[NoteRow], share: float, generator: np.random.Generator) -> list[NoteRow]:
    wrong = generator.random(len(rows)) < share
    return [
        (patient, text, LABELS[1 - LABELS.index(label)] if flip else label)
        for (patient, text, label), flip in zip(rows, wrong, strict=True)
    ]


class _Writer:
    """Writes the notes of one patient."""

    def __init__(self, profile: HospitalProfile, generator: np.random.Generator) -> None:
        self._profile = profile
        self._generator = generator
        names = [profile.specialty] if generator.random() < profile.focus else sorted(SPECIALTIES)
        self._words = SPECIALTIES[self._one_of(names)]
        drug = self._word("drugs")
        self._drugs = (drug, self._one_of([word for word in self._words.drugs if word != drug]))
        spread = (profile.prevalence * _CONCENTRATION, (1 - profile.prevalence) * _CONCENTRATION)
        self._propensity = float(generator.beta(*spread))

    def notes(self) -> list[tuple[str, str]]:
        """One to eight notes: text and label."""
        count = 1 + int(self._generator.binomial(_MOST_NOTES - 1, 1 / 3))
        return [self._note() for _ in range(count)]

    def _note(self) -> tuple[str, str]:
        label = LABELS[int(self._generator.random() < self._propensity)]
        lookalike = self._generator.random() < _LOOKALIKE_SHARE
        reaction, twin = self._one_of(TELLING)
        told = reaction if label == POSITIVE_LABEL else twin if lookalike else self._one_of(ROUTINE)
        templates = [self._one_of(FILLER) for _ in range(int(self._generator.integers(3)))]
        templates.insert(int(self._generator.integers(len(templates) + 1)), told)
        slots = self._slots()
        return self._styled([self._filled(template, slots) for template in templates]), label

    def _slots(self) -> Mapping[str, tuple[str, ...]]:
        """What this note is about, beside the slots that all notes share."""
        drug, other = self._generator.permutation(self._drugs).tolist()
        about = {"drug": drug, "other": other, "finding": self._word("findings"), "cause": self._word("causes")}
        return {**SLOTS, **{slot: (word,) for slot, word in about.items()}, "condition": self._words.conditions}

    def _word(self, kind: str) -> str:
        """A word of the specialty, or now and then one that every ward uses."""
        source: Specialty = COMMON if self._generator.random() < 0.25 else self._words
        choices: tuple[str, ...] = getattr(source, kind)
        return self._one_of(choices)

    def _one_of(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self._generator.integers(len(choices)))]

    def _filled(self, template: str, slots: Mapping[str, tuple[str, ...]]) -> str:
        while "{" in template:
            template = _SLOT.sub(lambda match: self._one_of(slots[match.group(1)]), template)
        return template

    def _styled(self, sentences: Sequence[str]) -> str:
        """Write as this hospital does: abbreviations, typos, capitals."""
        generator, profile = self._generator, self._profile
        text = ". ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences) + "."
        text = _ABBREVIATED.sub(
            lambda match: ABBREVIATIONS[match[0]] if generator.random() < profile.abbreviations else match[0], text
        )
        return " ".join(self._mistyped(word) if generator.random() < profile.typos else word for word in text.split())

    def _mistyped(self, word: str) -> str:
        if len(word) < 4:
            return word
        place = int(self._generator.integers(1, len(word) - 2))
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
