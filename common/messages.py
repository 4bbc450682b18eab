"""What coordinator and sites say to each other: one frozen type a message, one rule a field.

    RoundOrder   coordinator -> site   train on this model in this round
    RoundReply   site -> coordinator   the noised change of the trainable values
    Refusal      site -> coordinator   no, and a code that says why; never free text

Messages are plain values and may be made wrongly; `check_message` is what `common.wire` asks on both sides of it, so
that no message that breaks a rule is ever sent or taken in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from common.errors import IntegrityError

Vector = npt.NDArray[np.float32]

RefusalCode = Literal["malformed", "other-plan", "wrong-shape", "unexpected-round", "conflicting-order", "no-update"]
"""Why a site refuses an order.

malformed: the bytes could not be read. other-plan: not the plan this site runs. wrong-shape: another number of values
than this site's model has. unexpected-round: past, or beyond the plan's last. conflicting-order: another order for
this round was taken already. no-update: the round was charged, but training gave nothing that may leave.
"""

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROUND_LIMIT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class RoundOrder:
    """The coordinator asks for one round of training.

    Args:
        plan_digest: Digest of the plan that the round belongs to.
        round_number: From 1.
        weights: The trainable values of the global model, shape `[d]`.
        basis: The frozen LoRA matrices when the server has changed them, shape `[b]`; empty otherwise.
    """

    plan_digest: str
    round_number: int
    weights: Vector = field(repr=False)
    basis: Vector = field(repr=False)


@dataclass(frozen=True, eq=False)
class RoundReply:
    """One site's answer to an order.

    Args:
        plan_digest: As in the order.
        round_number: As in the order.
        site: Name of the site.
        update: Noised change of the trainable values, shape `[d]`.
    """

    plan_digest: str
    round_number: int
    site: str
    update: Vector = field(repr=False)


@dataclass(frozen=True)
class Refusal:
    """A site does not do what an order asks.

    Args:
        plan_digest: As in the order; the site's own plan when the order could not be read.
        round_number: As in the order; 0 when the order could not be read.
        site: Name of the site.
        code: Why; one of a closed list, so that no text can carry anything out.
    """

    plan_digest: str
    round_number: int
    site: str
    code: RefusalCode


Message = RoundOrder | RoundReply | Refusal


@dataclass(frozen=True)
class FieldRule:
    """What a field must be, in words and as a predicate; `dtype` is a vector's form on the wire, empty for a scalar."""

    must_be: str
    holds: Callable[[object], bool]
    dtype: str = ""


def _is_text(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_round(lowest: int) -> Callable[[object], bool]:
    # `type(...) is int` because True is an int to `isinstance`.
    return lambda value: type(value) is int and lowest <= value <= _ROUND_LIMIT


def _is_code(value: object) -> bool:
    return isinstance(value, str) and value in get_args(RefusalCode)


def _is_finite_vector(value: object) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.ndim != 1:
        return False
    return bool(np.isfinite(value).all())


_PLAN = FieldRule("64 hexadecimal digits", _is_text(_DIGEST))
_ROUND = FieldRule("a whole number from 1", _is_round(1))
_ROUND_OR_NONE = FieldRule("a whole number from 0", _is_round(0))
_SITE = FieldRule("a site name of 1 to 64 letters, digits, dots, hyphens or underscores", _is_text(SITE_NAME))
_CODE = FieldRule("a known refusal code", _is_code)
_VECTOR = FieldRule("a finite float32 vector", _is_finite_vector, dtype="<f4")

FIELD_RULES: Mapping[type[Message], Mapping[str, FieldRule]] = {
    RoundOrder: {"plan_digest": _PLAN, "round_number": _ROUND, "weights": _VECTOR, "basis": _VECTOR},
    RoundReply: {"plan_digest": _PLAN, "round_number": _ROUND, "site": _SITE, "update": _VECTOR},
    Refusal: {"plan_digest": _PLAN, "round_number": _ROUND_OR_NONE, "site": _SITE, "code": _CODE},
}
"""Every message and every field of it, in the order in which vectors travel."""


def check_message(message: Message) -> None:
    """Refuse a message that breaks a rule of its fields.

    Raises:
        IntegrityError: Naming kind, field and rule, and never the value.
    """
    rules = FIELD_RULES.get(type(message))
    kind = type(message).__name__
    if rules is None:
        raise IntegrityError(f"{kind} is not a kind of message")
    for name, rule in rules.items():
        if not rule.holds(getattr(message, name)):
            raise IntegrityError(f"`{name}` of a {kind} must be {rule.must_be}")
