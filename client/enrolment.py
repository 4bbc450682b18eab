"""A site's half of enrolment: ask, read the answer with suspicion, pin one coordinator."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol, Self

from pydantic import model_validator

from client.home import SiteHome
from client.keys import node_key, site_identity
from common.armour import TEXT_LIMIT
from common.authority import check_authority_time
from common.config import StrictConfig
from common.documents import check_signed, document_bytes, read_document_file, sign_document
from common.enrolment import (
    Invitation,
    JoinRequest,
    SignatureText,
    check_fingerprint,
    fingerprint,
    read_invitation,
    sign_join_request,
    write_join_request,
)
from common.errors import ConfigError, IntegrityError, RollbackError, TryAgainError
from common.files import write_durably, write_new_durably
from common.identity import public_name
from common.moments import Moment, current_moment, moment_text
from common.node_key import public_pem
from common.private_files import PRIVATE_FILE

_PURPOSE = "pinned coordinator"


class Named(Protocol):
    """What a request needs of the site's config."""

    @property
    def name(self) -> str:
        """The site's name."""
        ...


class Pinned(StrictConfig):
    """The one coordinator that this site listens to.

    Guarantees:
        One that exists was signed by the identity of the site that its invitation is for, so that nobody without that
        key exchanges the coordinator on disk.
    """

    format_version: Literal[1] = 1
    invitation: Invitation
    accepted: Moment
    signature: SignatureText

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        check_signed(self, _PURPOSE, self.invitation.site_public, "the site that accepted it")
        return self


def make_request(home: SiteHome, config: Named, now: datetime | None = None) -> str:
    """The file that asks a coordinator to enrol this site.

    Edge cases:
        Asked again under the same name, the same text comes out. Once an invitation was accepted, the name stays.

    Args:
        home: This site's home, with its keys.
        config: The site's settings, for its name.
        now: The clock, in UTC; the machine's where left out.

    Raises:
        ConfigError: When a key is missing or open to others, the name is none of a site, or another one is pinned.
        IntegrityError: When a key or a kept file is damaged.
    """
    identity, node = site_identity(home), node_key(home)
    kept = _kept_request(home)
    if kept and (kept.site, kept.identity, kept.node_key) == (config.name, public_name(identity), public_pem(node)):
        return write_join_request(kept)
    if home.coordinator.exists():
        raise ConfigError(
            f"this site is enrolled already, and not as {config.name!r} with these keys",
            hint="put name and keys back as they were; another home is for other patients, or for a part of the budget",
        )
    request = sign_join_request(config.name, identity, node, now or current_moment())
    write_durably(home.join_request, document_bytes(request), mode=PRIVATE_FILE)
    return write_join_request(request)


def check_invitation(home: SiteHome, text: str, now: datetime | None = None) -> Invitation:
    """An invitation that this site could accept; nothing is written, so a person may look at it first.

    Guarantees:
        It is for this site's name and key, signed by the coordinator that it names, with a CA that is one and valid
        now. No other coordinator is pinned here, and no later invitation.

    Raises:
        ConfigError: When this site never asked, is with another coordinator, or the invitation is for somebody else.
        IntegrityError: When the text is no good invitation.
        RollbackError: When a later invitation was accepted before.
    """
    identity = public_name(site_identity(home))
    asked = _kept_request(home)
    if asked is None:
        raise ConfigError("this site has not asked to join", hint="run `cloister-site request` first")
    invitation = read_invitation(text)
    _refuse_others(invitation, asked, identity)
    check_authority_time(invitation.ca_certificate, now or current_moment())
    if home.coordinator.exists():
        _refuse_change(read_pinned(home).invitation, invitation)
    return invitation


def accept(
    home: SiteHome, invitation_text: str, expected_fingerprint: str | None, now: datetime | None = None
) -> Pinned:
    """Pin the coordinator of an invitation.

    Args:
        home: This site's home.
        invitation_text: What the coordinator sent.
        expected_fingerprint: What the coordinator read over the phone; None only where a person has just compared the
            fingerprint of `check_invitation(…).coordinator` and said yes.
        now: The clock, in UTC; the machine's where left out.

    Raises:
        UsageError: When the fingerprint is none.
        TransportError: When the fingerprint is another: the invitation comes from somebody else.
        ConfigError, IntegrityError, RollbackError: As `check_invitation`.
    """
    moment = now or current_moment()
    invitation = check_invitation(home, invitation_text, moment)
    if expected_fingerprint is not None:
        check_fingerprint(expected_fingerprint, invitation.coordinator, "invitation", "coordinator")
    pinned = read_pinned(home) if home.coordinator.exists() else None
    if pinned and pinned.invitation == invitation:
        return pinned
    return _pin(home, invitation, moment, first=pinned is None)


def read_pinned(home: SiteHome) -> Pinned:
    """The coordinator that this site has accepted.

    Raises:
        ConfigError: When there is none.
        IntegrityError: When the file was changed, or belongs to another site.
    """
    if not home.coordinator.exists():
        raise ConfigError("this site has accepted no invitation", hint="run `cloister-site accept INVITATION` first")
    pinned = read_document_file(Pinned, home.coordinator, _PURPOSE, TEXT_LIMIT)
    if pinned.invitation.site_public != public_name(site_identity(home)):
        raise IntegrityError(
            f"{home.coordinator} was accepted by another site than the one whose key is here",
            hint="restore key and file from the same backup",
        )
    return pinned


def _pin(home: SiteHome, invitation: Invitation, moment: datetime, *, first: bool) -> Pinned:
    content = {"invitation": invitation.model_dump(mode="json"), "accepted": moment_text(moment)}
    pinned = sign_document(Pinned, _PURPOSE, content, site_identity(home))
    # The first one is only written where none is, so that two commands at once cannot pin two coordinators.
    write = write_new_durably if first else write_durably
    try:
        write(home.coordinator, document_bytes(pinned), mode=PRIVATE_FILE)
    except FileExistsError:
        raise TryAgainError("another command accepted an invitation at this moment", hint="look at `status`") from None
    return pinned


def _kept_request(home: SiteHome) -> JoinRequest | None:
    if not home.join_request.exists():
        return None
    return read_document_file(JoinRequest, home.join_request, "join request", TEXT_LIMIT)


def _refuse_others(invitation: Invitation, asked: JoinRequest, identity: str) -> None:
    """Refuse what is whole, but another site's."""
    hint = "ask the coordinator for the invitation that answers this site's request"
    if invitation.site != asked.site:
        raise ConfigError(f"the invitation is for the site {invitation.site}, and this is {asked.site}", hint=hint)
    if invitation.site_public != identity:
        rule = f"the invitation is for the key {fingerprint(invitation.site_public)}"
        raise ConfigError(f"{rule}, and this site's is {fingerprint(identity)}", hint=hint)


def _refuse_change(pinned: Invitation, invitation: Invitation) -> None:
    if (invitation.coordinator, invitation.federation) != (pinned.coordinator, pinned.federation):
        raise ConfigError(
            f"this site belongs to {pinned.federation_name}, whose coordinator is {fingerprint(pinned.coordinator)}, "
            "and the invitation is of another",
            hint="a home has one coordinator for good; another home is for other patients, or for a part of the budget",
        )
    if invitation.created < pinned.created:
        raise RollbackError(
            f"the invitation is of {invitation.created:%Y-%m-%d %H:%M}, and one of {pinned.created:%Y-%m-%d %H:%M} was "
            "accepted before",
            hint="ask the coordinator for a new one",
        )
