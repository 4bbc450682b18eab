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
    "misaddressed",
    "past-sequence",
    "far-sequence",
    "rolled-back",
    "not-taking-part",
    "not-ready",
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

misaddressed: an envelope that is not from the coordinator to this site in this federation. past-sequence: an older
request, or another one with the last one's number. far-sequence: a number too far beyond the last one. rolled-back: the
coordinator has seen answers that this site does not remember, so that it must not go on.

not-taking-part: policy, approval or budget say no to the plan; the answer to its offer says why. not-ready: the base is
not here, or records, base or books are not fit for the plan; the site's own log says what.
"""

PlanState = Literal["accepted", "waiting", "refused"]
BaseState = Literal["lacking", "complete", "damaged", "no-room"]
Outcome = Literal["finished", "stopped", "failed"]

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(r"[a-z0-9-]{1,40}")
_NUMBER_LIMIT = 2**31 - 1
MOST_NAMES = 512
"""Names in one list at most, hence sites that can take part where updates are masked."""
MOST_LABELS = 64
"""Labels in one list at most."""
DOCUMENT_BYTES = 1 << 20
"""Size of a document at most: a plan of 512 sites has some 60 KiB."""
CHUNK_BYTES = 8 << 20
"""Size of a chunk of a file; only a file's last chunk may be shorter."""


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


def _is_one_of(words: tuple[str, ...]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in words


def _is_set(pattern: re.Pattern[str], fewest: int, most: int) -> Callable[[object], bool]:
    """A tuple of different texts in order: one spelling for one set."""
    return lambda value: (
        isinstance(value, tuple)
        and fewest <= len(value) <= most
        and all(map(_is_text(pattern), value))
        and all(first < second for first, second in pairwise(value))
    )


def _is_finite_vector(value: object) -> bool:
    return _is_vector(value, np.float32) and bool(np.isfinite(value).all())  # type: ignore[call-overload]


def _is_vector(value: object, dtype: type[np.generic]) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == 1


def _is_bytes(fewest: int, most: int) -> Callable[[object], bool]:
    return lambda value: _is_vector(value, np.uint8) and fewest <= len(value) <= most  # type: ignore[arg-type]


PLAN = FieldRule("64 hexadecimal digits", _is_text(_DIGEST))
SESSION = FieldRule("64 hexadecimal digits", _is_text(_DIGEST))
ROUND = FieldRule("a whole number from 1", _is_number(1))
ROUND_OR_NONE = FieldRule("a whole number from 0", _is_number(0))
SITE = FieldRule("a site name of 1 to 64 letters, digits, dots, hyphens or underscores", _is_text(SITE_NAME))
NAMES = FieldRule(f"1 to {MOST_NAMES} different site names in order", _is_set(SITE_NAME, 1, MOST_NAMES))
CODE = FieldRule("a known refusal code", _is_one_of(get_args(RefusalCode)))
PLAN_STATE = FieldRule("accepted, waiting or refused", _is_one_of(get_args(PlanState)))
BASE_STATE = FieldRule("lacking, complete, damaged or no-room", _is_one_of(get_args(BaseState)))
OUTCOME = FieldRule("finished, stopped or failed", _is_one_of(get_args(Outcome)))
LABELS = FieldRule(
    f"at most {MOST_LABELS} different labels in order, each of 1 to 40 small letters, digits or hyphens",
    _is_set(_LABEL, 0, MOST_LABELS),
)
PLACE = FieldRule("a whole number from 1", _is_number(1))
PLACE_OR_NONE = FieldRule("a whole number from 0", _is_number(0))
VECTOR = FieldRule("a finite float32 vector", _is_finite_vector, dtype="<f4")
RING = FieldRule("a uint32 vector", lambda value: _is_vector(value, np.uint32), dtype="<u4")
BYTES = FieldRule("a vector of bytes", lambda value: _is_vector(value, np.uint8), dtype="|u1")
SIGNATURE = FieldRule(f"{SIGNATURE_BYTES} bytes", _is_bytes(SIGNATURE_BYTES, SIGNATURE_BYTES), dtype="|u1")
DOCUMENT = FieldRule(f"1 to {DOCUMENT_BYTES} bytes", _is_bytes(1, DOCUMENT_BYTES), dtype="|u1")
CHUNK = FieldRule(f"at most {CHUNK_BYTES} bytes", _is_bytes(0, CHUNK_BYTES), dtype="|u1")
