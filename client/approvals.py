"""What a person at the hospital approved: one signed file a plan, so that nobody without the site's key approves."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import model_validator

from client.home import SiteHome
from client.keys import site_identity
from common.audit_fields import Person
from common.config import StrictConfig
from common.documents import check_signed, document_bytes, read_document_file, sign_document
from common.enrolment import PublicKey, SignatureText
from common.errors import ConfigError, IntegrityError, UsageError
from common.files import sync_folder, write_durably
from common.identity import public_name
from common.moments import Moment, current_moment, moment_text
from common.plan import Hexadecimal
from common.private_files import PRIVATE_FILE

_PURPOSE = "plan approval"
_LIMIT_BYTES = 1 << 14

ApprovalState = Literal["approved", "missing", "damaged"]


class Approval(StrictConfig):
    """A person's yes to one plan, by its digest, and until the moment that the person was shown.

    A digest says nothing about how long a plan is valid: its coordinator may sign the same plan anew.

    Guarantees:
        One that exists was signed with the site's identity over all of its fields.
    """

    format_version: Literal[1] = 1
    digest: Hexadecimal
    site_public: PublicKey
    by: Person
    approved: Moment
    valid_until: Moment
    signature: SignatureText

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        check_signed(self, _PURPOSE, self.site_public, "the site that it names")
        return self

    def holds_at(self, moment: datetime) -> bool:
        """Whether the person's yes reaches this far."""
        return moment <= self.valid_until


def approve(home: SiteHome, digest: str, by: str, valid_until: datetime, now: datetime | None = None) -> Approval:
    """Write down that a person approved a plan; approving it again changes nothing, unless it holds for longer now.

    Args:
        home: The site's.
        digest: The plan's.
        by: Who says yes.
        valid_until: Of the signed plan that the person was shown; the approval ends with it.
        now: The moment; left out: the clock.

    Raises:
        ConfigError: When the site's key is missing or open to others.
        IntegrityError: When an approval that is there was changed.
    """
    kept = read_approval(home, digest)
    if kept is not None and kept.valid_until >= valid_until:
        return kept
    identity = site_identity(home)
    fields = {
        "digest": digest,
        "site_public": public_name(identity),
        "by": by,
        "approved": moment_text(now or current_moment()),
        "valid_until": moment_text(valid_until),
    }
    approval = sign_document(Approval, _PURPOSE, fields, identity)
    write_durably(home.approval(digest), document_bytes(approval), mode=PRIVATE_FILE)
    return approval


def read_approval(home: SiteHome, digest: str) -> Approval | None:
    """The approval of a plan; None where there is none, or where it is of another site or plan.

    Raises:
        ConfigError: When the file, or the site's key, cannot be read.
        IntegrityError: When the file was changed.
    """
    path = home.approval(digest)
    try:
        approval = read_document_file(Approval, path, _PURPOSE, _LIMIT_BYTES)
    except ConfigError:
        if path.exists():
            raise
        return None  # there was none, or a person has taken it back this very moment
    except IntegrityError as error:
        hint = f"`cloister-site withdraw {digest[:12]}` removes it; then review the plan, and approve it anew"
        raise IntegrityError(error.message, hint=hint) from None
    mine = (digest, public_name(site_identity(home)))
    return approval if (approval.digest, approval.site_public) == mine else None


def check_approvals(home: SiteHome) -> None:
    """Read every approval, so that one that somebody has edited is noticed before its plan is asked for.

    Raises:
        ConfigError: When one, or the site's key, cannot be read.
        IntegrityError: When one was changed.
    """
    for path in sorted(home.approvals.glob("*.json")):
        read_approval(home, path.stem)


def approval_state(home: SiteHome, digest: str) -> ApprovalState:
    """Whether a plan is approved, for a glance at the home: what cannot be relied on is damaged, and no error."""
    try:
        return "missing" if read_approval(home, digest) is None else "approved"
    except (ConfigError, IntegrityError):
        return "damaged"


def withdraw(home: SiteHome, digest: str) -> None:
    """Take an approval back; what was spent stays spent, and the node refuses from its next request on.

    It is gone for good when this returns. A copy that somebody keeps approves again once it is put back: whoever can
    write in this home can do that, and has its key too.

    Raises:
        UsageError: When there is none.
    """
    try:
        home.approval(digest).unlink()
    except FileNotFoundError:
        raise UsageError(
            f"plan {digest[:12]}… is not approved here", hint="`cloister-site status` lists the plans"
        ) from None
    sync_folder(home.approvals)
