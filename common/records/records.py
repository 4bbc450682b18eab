"""Labelled texts and whose they are; nothing here can be printed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.plan import Unit

Integers = npt.NDArray[np.int64]

UNKNOWN_PATIENT = b""
"""Key of a patient whose identity nobody wrote down."""

# Keys are compared within one process only; a fresh salt makes them useless anywhere else.
_SALT = secrets.token_bytes(16)
_KEY_BYTES = 16


@dataclass(frozen=True, repr=False, eq=False)
class Records:
    """The private rows of one site (or the public rows of a test set).

    Guarantees:
        `repr` and `str` show nothing of the rows, not even how many there are. Original patient ids are not kept,
        only hashes of them under a salt that dies with the process.
    Edge cases: No rows at all is allowed, and then there are no patients.

    Args:
        texts: One text a row.
        labels: Index of the row's label in the plan's list, shape `[N]`.
        patients: Index of the row's patient, 0 to P-1, every one of them used, shape `[N]`.
        patient_keys: For each of the P patients a salted hash of the original id, `UNKNOWN_PATIENT` without one.

    Raises:
        ValueError: When the four do not fit together.
    """

    texts: tuple[str, ...]
    labels: Integers
    patients: Integers
    patient_keys: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.labels) == len(self.patients):
            raise ValueError("texts, labels and patients must have one entry a row")
        if len(self.labels) and self.labels.min() < 0:
            raise ValueError("labels must be indices from 0")
        if len(self.patients) and not 0 <= self.patients.min() <= self.patients.max() < len(self.patient_keys):
            raise ValueError("patients must be indices into patient_keys")
        if not np.bincount(self.patients, minlength=len(self.patient_keys)).all():
            raise ValueError("every patient must have a row")

    def __repr__(self) -> str:
        return "Records(hidden)"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def patient_count(self) -> int:
        """P: number of patients."""
        return len(self.patient_keys)

    def units(self, unit: Unit) -> Integers:
        """The unit of privacy that each row belongs to, shape `[N]`."""
        return self.patients if unit == "patient" else np.arange(len(self), dtype=np.int64)

    def unit_count(self, unit: Unit) -> int:
        """Number of units of privacy: P patients, or N records."""
        return self.patient_count if unit == "patient" else len(self)

    def select(self, rows: Integers) -> Records:
        """The given rows, in the given order; patients are numbered anew without gaps, in their old order.

        Args:
            rows: Row indices, shape `[k]`; k may be 0.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        kept, patients = np.unique(self.patients[chosen], return_inverse=True)
        return Records(
            texts=tuple(self.texts[row] for row in chosen.tolist()),
            labels=self.labels[chosen],
            patients=patients.astype(np.int64),
            patient_keys=tuple(self.patient_keys[patient] for patient in kept.tolist()),
        )


def build_records(texts: Sequence[str], labels: Sequence[int], patient_ids: Sequence[str] | None) -> Records:
    """Number the patients by first appearance and forget their original ids.

    Args:
        texts: One text a row.
        labels: One label index a row.
        patient_ids: One original id a row, equal for rows of one patient; None: every row is its own, unknown patient.
    """
    label_array = np.asarray(labels, dtype=np.int64)
    if patient_ids is None:
        own = np.arange(len(texts), dtype=np.int64)
        return Records(tuple(texts), label_array, own, (UNKNOWN_PATIENT,) * len(texts))
    numbers: dict[str, int] = {}
    patients = np.asarray([numbers.setdefault(patient, len(numbers)) for patient in patient_ids], dtype=np.int64)
    return Records(tuple(texts), label_array, patients, tuple(map(_patient_key, numbers)))


def merge(parts: Sequence[Records]) -> Records:
    """All rows one after the other; patients of different parts stay different patients, also with equal ids."""
    starts = np.cumsum([0, *(part.patient_count for part in parts)])
    empty = np.zeros(0, dtype=np.int64)
    return Records(
        texts=tuple(text for part in parts for text in part.texts),
        labels=np.concatenate([empty, *(part.labels for part in parts)]),
        patients=np.concatenate(
            [empty, *(part.patients + start for part, start in zip(parts, starts[:-1], strict=True))]
        ),
        patient_keys=tuple(key for part in parts for key in part.patient_keys),
    )


def _patient_key(patient_id: str) -> bytes:
    raw = patient_id.encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(raw, key=_SALT, digest_size=_KEY_BYTES).digest()
