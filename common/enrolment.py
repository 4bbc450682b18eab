"""How a hospital and a coordinator come to know each other: one file each way, and one phone call.

    site         -> coordinator   JoinRequest   name, identity, node key; signed by both keys
    coordinator  -> site          Invitation    address, CA, coordinator's identity, for this site alone; signed

Whoever carries the two files can read and lose them. He cannot put his own key into one unnoticed: the fingerprint of
the sender's identity, read over the phone, covers the signature and so all of it.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AfterValidator, Field, model_validator

from common.address import AddressText
from common.armour import TEXT_LIMIT, armour, unarmour
from common.authority import AuthorityPem
from common.canonical import canonical_bytes, digest
from common.config import StrictConfig
from common.documents import check_signed, document_bytes, parse_document, sign_document
from common.envelope import COORDINATOR
from common.errors import TransportError, UsageError
from common.identity import is_sound, public_name
from common.moments import Moment, moment_text
from common.node_key import NodePublicKey, is_proof, prove_possession, public_pem
from common.plan import Hexadecimal, SiteName

_REQUEST = "join request"
_INVITATION = "invitation"
_GROUPS, _GROUP = 6, 4
_BASE32 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def _sound(public: str) -> str:
    if not is_sound(public):
        raise ValueError("must be an Ed25519 key for which not everybody can sign")
    return public


def _of_a_site(name: str) -> str:
    if name.casefold() == COORDINATOR:
        raise ValueError(f"must not be `{COORDINATOR}`, which is what sites call the other side")
    return name


PublicKey = Annotated[Hexadecimal, AfterValidator(_sound)]
SignatureText = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
EnrolledName = Annotated[SiteName, AfterValidator(_of_a_site)]
FederationName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def federation_id(name: str, coordinator_public: str) -> str:
    """64 hexadecimal digits that stand for a name as used by one coordinator."""
    return digest(["cloister federation", 1, name, coordinator_public])


def fingerprint(public: str) -> str:
    """A public key for the phone: 120 bits of its SHA-256, as `ABCD-EFGH-…` in base32, which has no 0, 1, 8 or 9."""
    hashed = hashlib.sha256(canonical_bytes(["cloister fingerprint", 1, public])).digest()
    return _in_groups(base64.b32encode(hashed).decode("ascii"))


def check_fingerprint(typed: str, public: str, document: str, side: str) -> None:
    """Compare what somebody typed with a key's whole fingerprint; case, spaces and hyphens do not count.

    Args:
        typed: What the other side read over the phone.
        public: The key.
        document: What it came in: `request`.
        side: Whose it should be: `site`.

    Raises:
        UsageError: When what was typed is no fingerprint: it was mistyped, and says nothing about the document.
        TransportError: When it is another one: the document comes from somebody else.
    """
    expected = _typed_fingerprint(typed)
    if expected != fingerprint(public):
        raise TransportError(
            f"the {document} comes from a {side} with the fingerprint {fingerprint(public)}, which is not the one that "
            f"was typed, {expected}",
            hint=f"ask the {side} to read its fingerprint again, over a line that you trust",
        )


def _typed_fingerprint(text: str) -> str:
    """What was typed, in the one spelling."""
    groups = text.upper().replace("-", " ").split()
    letters = "".join(groups)
    hint = "type all of what the other side reads over the phone, such as ABCD-EFGH-IJKL-MNOP-QRST-UVWX"
    if len(letters) != _GROUPS * _GROUP:
        are_whole = all(len(group) == _GROUP for group in groups)
        found = f"{len(groups)}" if are_whole else f"{len(letters)} in all"
        raise UsageError(f"a fingerprint has six groups of four letters and digits; this one has {found}", hint=hint)
    if set(letters) - _BASE32:
        raise UsageError("a fingerprint has letters from A to Z and digits from 2 to 7, and no others", hint=hint)
    return _in_groups(letters)


def _in_groups(letters: str) -> str:
    return "-".join(letters[start : start + _GROUP] for start in range(0, _GROUPS * _GROUP, _GROUP))


class JoinRequest(StrictConfig):
    """A site asks to be enrolled.

    Guarantees:
        One that exists was signed by the holder of the identity and of the node key, both over the name: a request
        with somebody else's key in it cannot be made.
    """

    format_version: Literal[1] = 1
    site: EnrolledName
    identity: PublicKey
    node_key: NodePublicKey
    created: Moment
    node_signature: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){8,104}$")]
    signature: SignatureText

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        check_signed(self, _REQUEST, self.identity, "the identity that it names")
        content = self.model_dump(mode="json", exclude={"signature", "node_signature"})
        if not is_proof(self.node_key, content, bytes.fromhex(self.node_signature)):
            raise ValueError("is not signed by the node key that it names")
        return self


class Invitation(StrictConfig):
    """A coordinator takes a site into its federation.

    Guarantees:
        One that exists was signed by the coordinator that it names, carries one certificate that may issue others, and
        a federation id that fits. Whether that coordinator is the right one, only its fingerprint tells.
    """

    format_version: Literal[1] = 1
    federation_name: FederationName
    federation: Hexadecimal
    address: AddressText
    ca_certificate: AuthorityPem
    coordinator: PublicKey
    site: EnrolledName
    site_public: PublicKey
    created: Moment
    signature: SignatureText

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        check_signed(self, _INVITATION, self.coordinator, "the coordinator that it names")
        if self.federation != federation_id(self.federation_name, self.coordinator):
            raise ValueError("has a federation id that is not of its name and coordinator")
        if self.site_public == self.coordinator:
            raise ValueError("names one key for the site and for the coordinator")
        return self


def sign_join_request(
    site: str, identity: Ed25519PrivateKey, node_key: EllipticCurvePrivateKey, created: datetime
) -> JoinRequest:
    """Ask to be enrolled under a name, with two keys.

    Raises:
        ConfigError: When the name is none of a site.
    """
    content: dict[str, Any] = {
        "format_version": 1,
        "site": site,
        "identity": public_name(identity),
        "node_key": public_pem(node_key),
        "created": moment_text(created),
    }
    content["node_signature"] = prove_possession(node_key, content).hex()
    return sign_document(JoinRequest, _REQUEST, content, identity)


def sign_invitation(
    identity: Ed25519PrivateKey,
    federation_name: str,
    address: str,
    ca_certificate: str,
    request: JoinRequest,
    created: datetime,
) -> Invitation:
    """Take the site of a request into a federation.

    Raises:
        ConfigError: When a value breaks its rule, such as an address that is none.
    """
    coordinator = public_name(identity)
    content = {
        "federation_name": federation_name,
        "federation": federation_id(federation_name, coordinator),
        "address": address,
        "ca_certificate": ca_certificate,
        "coordinator": coordinator,
        "site": request.site,
        "site_public": request.identity,
        "created": moment_text(created),
    }
    return sign_document(Invitation, _INVITATION, content, identity)


def write_join_request(request: JoinRequest) -> str:
    """A request as the text that is sent."""
    return armour(_REQUEST, document_bytes(request))


def read_join_request(text: str) -> JoinRequest:
    """A request from the text that was sent; see `unarmour` and `parse_document` for what is refused."""
    return parse_document(JoinRequest, unarmour(_REQUEST, text), _REQUEST, TEXT_LIMIT)


def write_invitation(invitation: Invitation) -> str:
    """An invitation as the text that is sent."""
    return armour(_INVITATION, document_bytes(invitation))


def read_invitation(text: str) -> Invitation:
    """An invitation from the text that was sent; see `unarmour` and `parse_document` for what is refused."""
    return parse_document(Invitation, unarmour(_INVITATION, text), _INVITATION, TEXT_LIMIT)
