"""What coordinator and sites say to each other: one frozen type a message, one rule a field.

    RoundOrder   coordinator -> site   train on this model in this round
    RoundReply   site -> coordinator   the noised change of the trainable values
    Refusal      site -> coordinator   no, and a code that says why; never free text

Where updates are masked, order and reply are those of `common.secagg.messages`; what is said before and after the
rounds is in `common.study_messages`.

Messages are plain values and may be made wrongly; `check_message` is what `common.wire` asks on both sides of it, so
that no message that breaks a rule is ever sent or taken in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.errors import IntegrityError
from common.fields import CODE, PLAN, ROUND, ROUND_OR_NONE, SITE, VECTOR, FieldRule, RefusalCode, Vector
from common.secagg.messages import SECAGG_RULES, CoordinatorMessage, MaskedOrder, SiteMessage
from common.study_messages import STUDY_RULES, CoordinatorStudyMessage, SiteStudyMessage


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


Order = RoundOrder | MaskedOrder
StudyMessage = CoordinatorStudyMessage | SiteStudyMessage
Message = RoundOrder | RoundReply | Refusal | CoordinatorMessage | SiteMessage | StudyMessage

FIELD_RULES: Mapping[type[Any], Mapping[str, FieldRule]] = {
    RoundOrder: {"plan_digest": PLAN, "round_number": ROUND, "weights": VECTOR, "basis": VECTOR},
    RoundReply: {"plan_digest": PLAN, "round_number": ROUND, "site": SITE, "update": VECTOR},
    Refusal: {"plan_digest": PLAN, "round_number": ROUND_OR_NONE, "site": SITE, "code": CODE},
    **SECAGG_RULES,
    **STUDY_RULES,
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
