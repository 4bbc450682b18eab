"""What a field of a message may be: a rule in words and as a predicate, and its form on the wire."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from common.identity import SIGNATURE_BYTES

Vector = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Ring = npt.NDArray[np.uint32]

RefusalCode = Literal[
    "malformed",
    "other-plan",
    "wrong-shape",
    "unexpected-round",
    "conflicting-order",
    "no-update",
    "other-session",
    "bad-keys",
    "bad-cohort",
    "other-context",
    "conflicting-survivors",
    "too-few-consents",
    "bad-share",
]
"""Why a site refuses what it is asked.

malformed: the bytes could not be read. other-plan: not the plan this site runs. wrong-shape: another number of values
than this site's model has. unexpected-round: past, not begun, or beyond the plan's last. conflicting-order: another
order for this round was taken already. no-update: the round was charged, but training gave nothing that may leave.

other-session: no session of this site, or not as it was begun. bad-keys: a session's keys are not those of the plan's
roster, each signed by its site. bad-cohort: a cohort or survivor set that is too small or not of this session.
other-context: a survivor whose reply is not for the roster, cohort, round and model that this site knows.
conflicting-survivors: another survivor set was agreed to in this round. too-few-consents: fewer good signatures than
the threshold. bad-share: a sealed share that was changed, or is for another site or round.
"""

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBER_LIMIT = 2**31 - 1
MOST_NAMES = 512
"""Names in one list at most, hence sites that can take part where updates are masked."""


@dataclass(frozen=True)
class FieldRule:
    """What a field must be.

    Attributes:
        must_be: The rule in words.
        holds: The rule as a predicate.
        dtype: A vector's form on the wire; empty for what travels in the header.
    """

    must_be: str
    holds: Callable[[object], bool]
    dtype: str = ""


def _is_text(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_number(lowest: int) -> Callable[[object], bool]:
    # `type(...) is int` because True is an int to `isinstance`.
    return lambda value: type(value) is int and lowest <= value <= _NUMBER_LIMIT


def _is_code(value: object) -> bool:
    return isinstance(value, str) and value in get_args(RefusalCode)


def _is_names(value: object) -> bool:
    """A tuple of different site names in order: one spelling for one set."""
    if not isinstance(value, tuple) or not 0 < len(value) <= MOST_NAMES or not all(map(_is_text(SITE_NAME), value)):
        return False
    return all(first < second for first, second in pairwise(value))


def _is_finite_vector(value: object) -> bool:
    return _is_vector(value, np.float32) and bool(np.isfinite(value).all())  # type: ignore[call-overload]


def _is_vector(value: object, dtype: type[np.generic]) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == 1


def _is_bytes(size: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape == (size,)


PLAN = FieldRule("64 hexadecimal digits", _is_text(_DIGEST))
SESSION = FieldRule("64 hexadecimal digits", _is_text(_DIGEST))
ROUND = FieldRule("a whole number from 1", _is_number(1))
ROUND_OR_NONE = FieldRule("a whole number from 0", _is_number(0))
SITE = FieldRule("a site name of 1 to 64 letters, digits, dots, hyphens or underscores", _is_text(SITE_NAME))
NAMES = FieldRule(f"1 to {MOST_NAMES} different site names in order", _is_names)
CODE = FieldRule("a known refusal code", _is_code)
VECTOR = FieldRule("a finite float32 vector", _is_finite_vector, dtype="<f4")
RING = FieldRule("a uint32 vector", lambda value: _is_vector(value, np.uint32), dtype="<u4")
BYTES = FieldRule("a vector of bytes", lambda value: _is_vector(value, np.uint8), dtype="|u1")
SIGNATURE = FieldRule(f"{SIGNATURE_BYTES} bytes", _is_bytes(SIGNATURE_BYTES), dtype="|u1")
