"""The coordinator's half of enrolment: one file for each site, each under one name with one pair of keys."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import model_validator

from common.armour import TEXT_LIMIT
from common.config import StrictConfig
from common.documents import check_signed, document_bytes, read_document_file, sign_document
from common.enrolment import (
    JoinRequest,
    PublicKey,
    SignatureText,
    check_fingerprint,
    fingerprint,
    read_join_request,
    sign_invitation,
    write_invitation,
)
from common.errors import ConfigError, IntegrityError
from common.fields import SITE_NAME
from common.files import sync_folder, write_new_durably
from common.identity import public_name
from common.key_files import read_identity
from common.moments import Moment, current_moment, moment_text
from common.private_files import PRIVATE_FILE
from server.config import load_coordinator_config
from server.home import CoordinatorHome

_PURPOSE = "enrolled site"
_LOOK_ALIKES = str.maketrans("_.01", "--ol")


class EnrolledSite(StrictConfig):
    """A site that was let in.

    Guarantees:
        One that exists was signed by the coordinator that it names, and its request by both of the site's keys.
    """

    format_version: Literal[1] = 1
    coordinator: PublicKey
    request: JoinRequest
    enrolled: Moment
    signature: SignatureText

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        check_signed(self, _PURPOSE, self.coordinator, "the coordinator that enrolled it")
        return self

    @property
    def name(self) -> str:
        """The site's name in plans and envelopes."""
        return self.request.site

    @property
    def public(self) -> str:
        """The site's identity, as a roster names it."""
        return self.request.identity

    @property
    def node_key(self) -> str:
        """The site's node key in PEM, as Flower registers it."""
        return self.request.node_key


def enrol(
    home: CoordinatorHome, request_text: str, now: datetime | None = None, *, expected_fingerprint: str | None = None
) -> str:
    """Let a site in, and write its invitation.

    Guarantees:
        A name stands for one identity and one node key, and each key for one name, also when two commands run at once.
        The site's file is on disk before the invitation exists.

    Edge cases:
        The same request again gives another invitation, with the address and certificate of today.

    Args:
        home: This coordinator's home.
        request_text: What the site sent.
        now: The clock, in UTC; the machine's where left out.
        expected_fingerprint: What the site read over the phone; None only where a person has just compared the
            fingerprint of `read_join_request(…).identity` and said yes.

    Raises:
        UsageError: When the fingerprint is none.
        TransportError: When the fingerprint is another: the request comes from somebody else.
        IntegrityError: When the text is no good join request.
        ConfigError: When name or key are taken, or the home is not fit.
    """
    request, moment = read_join_request(request_text), now or current_moment()
    if expected_fingerprint is not None:
        check_fingerprint(expected_fingerprint, request.identity, "request", "site")
    config, identity = load_coordinator_config(home.config), read_identity(home.identity_key)
    authority = _authority_text(home)
    invitation = sign_invitation(identity, config.name, config.address, authority, request, moment)
    with _alone(home.sites):
        _refuse_clash(request, enrolled(home))
        if not home.site(request.site).exists():
            _keep(home, request, moment, identity)
    return write_invitation(invitation)


def enrolled(home: CoordinatorHome) -> tuple[EnrolledSite, ...]:
    """All enrolled sites, by name.

    Raises:
        IntegrityError: When a file was changed, or was not written by this coordinator for this name.
    """
    public = public_name(read_identity(home.identity_key))
    return tuple(_read(path, public) for path in sorted(home.sites.glob("[!.]*.json")))


def withdraw(home: CoordinatorHome, name: str) -> EnrolledSite:
    """Take a site out; its name and keys are free again. What it knows of finished runs stays with it.

    Returns:
        The site as it was, so that the caller can take its node key from the SuperLink too.

    Raises:
        ConfigError: When no site of that name is enrolled.
    """
    with _alone(home.sites):
        path = home.site(name)
        # The pattern first: a name is a part of a path here.
        if not SITE_NAME.fullmatch(name) or not path.exists():
            known = ", ".join(site.name for site in enrolled(home)) or "none"
            raise ConfigError(f"no site {name[:64]!r} is enrolled", hint=f"enrolled sites: {known}")
        site = _read(path, public_name(read_identity(home.identity_key)))
        path.unlink()
        sync_folder(home.sites)
    return site


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One command at a time reads and writes the sites; the lock ends with the process, however that ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _authority_text(home: CoordinatorHome) -> str:
    try:
        return home.ca_certificate.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        hint = "restore it from a backup"
        raise ConfigError(f"the CA certificate {home.ca_certificate} cannot be read", hint=hint) from None


def _keep(home: CoordinatorHome, request: JoinRequest, moment: datetime, identity: Ed25519PrivateKey) -> None:
    content = {
        "coordinator": public_name(identity),
        "request": request.model_dump(mode="json"),
        "enrolled": moment_text(moment),
    }
    site = sign_document(EnrolledSite, _PURPOSE, content, identity)
    write_new_durably(home.site(request.site), document_bytes(site), mode=PRIVATE_FILE)


def _read(path: Path, coordinator: str) -> EnrolledSite:
    site = read_document_file(EnrolledSite, path, _PURPOSE, TEXT_LIMIT)
    if site.coordinator != coordinator or site.name != path.stem:
        raise IntegrityError(
            f"{path} was not written by this coordinator for a site of this name", hint="restore it from a backup"
        )
    return site


def _refuse_clash(request: JoinRequest, sites: Iterable[EnrolledSite]) -> None:
    for site in sites:
        if site.name != request.site and _skeleton(site.name) == _skeleton(request.site):
            raise ConfigError(
                f"the name {request.site} looks like {site.name}, which is enrolled", hint="ask for another name"
            )
        same_keys = (site.public, site.node_key) == (request.identity, request.node_key)
        if site.name == request.site and not same_keys:
            raise ConfigError(
                f"the name {site.name} belongs to the key {fingerprint(site.public)}, and the request comes with "
                "another identity or node key",
                hint=f"if the site has new keys, call it, and run `cloister-coordinator withdraw {site.name}` first",
            )
        if site.name != request.site and (site.public == request.identity or site.node_key == request.node_key):
            raise ConfigError(
                f"a key of the request is enrolled as {site.name} already, and it asks as {request.site}",
                hint=f"each site has keys of its own; to rename one, `cloister-coordinator withdraw {site.name}` first",
            )


def _skeleton(name: str) -> str:
    """Equal for names that a reader, a listener or a file system takes for the same."""
    return name.casefold().translate(_LOOK_ALIKES)
