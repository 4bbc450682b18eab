"""A plan as a coordinator sends it: signed, for one federation, and valid for a time."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import model_validator

from common.config import StrictConfig
from common.documents import check_signed, document_bytes, parse_document, sign_document
from common.enrolment import PublicKey, SignatureText
from common.identity import public_name
from common.moments import Moment, moment_text
from common.plan import Hexadecimal, Plan

SIGNED_PLAN_LIMIT_BYTES = 1 << 20
"""A full roster of 512 sites has about 70 KiB."""

_PURPOSE = "signed plan"


class SignedPlan(StrictConfig):
    """A plan, who issued it, for which federation, and for how long it may be run.

    Guarantees:
        One that exists was signed by the coordinator that it names over all of its fields, and its digest is the
        plan's. Whether that coordinator and federation are the pinned ones is for the caller to check, and whether it
        is still valid is for the policy.
    """

    format_version: Literal[1] = 1
    plan: Plan
    digest: Hexadecimal
    federation: Hexadecimal
    coordinator: PublicKey
    issued: Moment
    valid_until: Moment
    signature: SignatureText

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        check_signed(self, _PURPOSE, self.coordinator, "the coordinator that it names")
        if self.digest != self.plan.digest:
            raise ValueError("has a digest that is not its plan's")
        if self.valid_until <= self.issued:
            raise ValueError("ends before it begins")
        return self

    def is_valid_at(self, now: datetime) -> bool:
        """Whether it may be run at a moment; its last second counts."""
        return self.issued <= now <= self.valid_until


def sign_plan(
    plan: Plan, federation: str, issued: datetime, valid_until: datetime, identity: Ed25519PrivateKey
) -> SignedPlan:
    """Issue a plan.

    Args:
        plan: The finished plan.
        federation: `federation_id` of the coordinator's federation.
        issued: Now, in UTC, whole seconds.
        valid_until: The last moment at which it may be run, likewise.
        identity: The coordinator's.

    Raises:
        ConfigError: When a field breaks its rule, such as an end before the beginning.
    """
    fields = {
        "plan": plan.model_dump(mode="json"),
        "digest": plan.digest,
        "federation": federation,
        "coordinator": public_name(identity),
        "issued": moment_text(issued),
        "valid_until": moment_text(valid_until),
    }
    return sign_document(SignedPlan, _PURPOSE, fields, identity)


def write_signed_plan(signed: SignedPlan) -> bytes:
    """The one byte string of a signed plan: what is sent and kept."""
    return document_bytes(signed)


def read_signed_plan(data: bytes) -> SignedPlan:
    """A signed plan from bytes that came from outside.

    Raises:
        IntegrityError: When it is malformed, too long, not canonical, or not signed by the coordinator that it names.
    """
    return parse_document(SignedPlan, data, _PURPOSE, SIGNED_PLAN_LIMIT_BYTES)
