"""A message with its sender, recipient and place in the conversation, signed as a whole.

What `common.wire` writes says nothing about who sent it, to whom, and when. An envelope does, around any body:

    magic `CLSE` | version | header length | header | body | signature

The header is canonical JSON (docs/wire-format.md lists its fields). The signature is Ed25519, for a purpose of its own,
over header and SHA-256 of the body, so that no part of one envelope fits another.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.canonical import canonical_bytes, digest, read_canonical
from common.errors import IntegrityError
from common.fields import PLAN, ROUND, ROUND_OR_NONE, SITE, FieldRule
from common.identity import SIGNATURE_BYTES, is_signed_by, sign
from common.wire import FRAME_LIMIT_BYTES

COORDINATOR = "coordinator"
"""Name of the coordinator as sender and recipient; no site may have it."""

MAGIC = b"CLSE"
VERSION = 1
PURPOSE = "envelope"
# The longest header, with the longest names and numbers, has 655 bytes.
HEADER_LIMIT_BYTES = 1024

LARGEST_STEP = 2**20
"""A request may be numbered so far beyond the last one: farther, and a few requests would use up all numbers."""

_PREFIX = struct.Struct("<4sBI")
_FEDERATION = _KEY = FieldRule("64 hexadecimal digits", PLAN.holds)
_ANSWERS = FieldRule("64 hexadecimal digits, or empty", lambda value: value == "" or PLAN.holds(value))
_HEADER_RULES: Mapping[str, FieldRule] = {
    "federation": _FEDERATION,
    "plan_digest": PLAN,
    "round_number": ROUND_OR_NONE,
    "sequence": ROUND,
    "acknowledged": ROUND_OR_NONE,
    "sender": SITE,
    "sender_key": _KEY,
    "recipient": SITE,
    "recipient_key": _KEY,
    "answers": _ANSWERS,
    "body_bytes": ROUND_OR_NONE,
}


def envelope_bound(body_bytes: int) -> int:
    """Bytes that no envelope around so many bytes exceeds."""
    return _PREFIX.size + HEADER_LIMIT_BYTES + body_bytes + SIGNATURE_BYTES


ENVELOPE_LIMIT_BYTES = envelope_bound(FRAME_LIMIT_BYTES)
MESSAGE_LIMIT_BYTES = 64 << 20
"""The longest message that a node takes from its coordinator."""
SHORT_ENVELOPE_BYTES = 2 << 20
"""An envelope up to this long travels in the message that announces it: 500,000 values fit."""


@dataclass(frozen=True)
class Envelope:
    """What is said by whom to whom, and where in the conversation.

    Edge cases:
        Plain values, which may be made wrongly; `seal` refuses what breaks a rule.

    Args:
        federation: 64 hexadecimal digits that name the federation.
        plan_digest: The plan that the body is about.
        round_number: The round that the body is about; 0 where it names none.
        sequence: A request's number, from 1, strictly growing between a coordinator and a site; a reply has its
            request's.
        acknowledged: In a request: the highest sequence whose answer by this site the coordinator has seen. In a reply:
            the highest that the site has answered, this one included; 0 for none.
        sender: `COORDINATOR` or a site's name.
        recipient: `COORDINATOR` or a site's name.
        body: What is said; any bytes.
        answers: In a reply the `digest` of its request; empty in a request.
        sender_key: Public key of the sender, 64 hexadecimal digits.
        recipient_key: Public key of the recipient: a name may pass to another identity, when a site is enrolled anew,
            and what was said to the one before must not be heard by it.
    """

    federation: str
    plan_digest: str
    round_number: int
    sequence: int
    acknowledged: int
    sender: str
    recipient: str
    body: bytes = field(repr=False)
    answers: str = ""
    sender_key: str = field(kw_only=True)
    recipient_key: str = field(kw_only=True)

    @cached_property
    def header(self) -> dict[str, Any]:
        """What travels in the header."""
        values = {name: getattr(self, name) for name in _HEADER_RULES if name != "body_bytes"}
        return {**values, "body_bytes": len(self.body)}

    @cached_property
    def signed(self) -> dict[str, Any]:
        """What the signature is over."""
        return _signed_content(self.header, self.body)

    @cached_property
    def digest(self) -> str:
        """Names this envelope: 64 hexadecimal digits over all that is signed."""
        return digest(self.signed)


@dataclass(frozen=True, eq=False)
class SealedEnvelope:
    """A well-formed envelope of which nobody knows yet who signed it; `checked` is the way to what it says.

    Attributes:
        header: Its fields, each within its rule.
        body: A view into the bytes that came, which it keeps alive.
        signature: `[64]`.
    """

    header: Mapping[str, Any] = field(repr=False)
    body: memoryview = field(repr=False)
    signature: bytes = field(repr=False)

    @cached_property
    def signed(self) -> dict[str, Any]:
        """As `Envelope.signed`."""
        return _signed_content(self.header, self.body)

    @cached_property
    def digest(self) -> str:
        """As `Envelope.digest`."""
        return digest(self.signed)

    def checked(self, public: str) -> Envelope:
        """What the envelope says, once its signature holds.

        Edge cases:
            The body is copied here, once, and only for a good signature.

        Args:
            public: 64 hexadecimal digits: the key that must have signed it.

        Raises:
            IntegrityError: When that key did not sign this.
        """
        if not is_signed_by(public, PURPOSE, self.signed, self.signature):
            raise _unreadable("is not signed by the key that is expected")
        fields = {name: value for name, value in self.header.items() if name != "body_bytes"}
        return Envelope(**fields, body=bytes(self.body))


def seal(envelope: Envelope, identity: Ed25519PrivateKey) -> bytes:
    """Sign an envelope and write it down.

    Guarantees:
        The same envelope and identity give the same bytes, and `open_envelope` gives the same envelope back.

    Raises:
        IntegrityError: When a field breaks its rule; the error names the rule and never the value.
    """
    _check_fields(envelope.header)
    header = canonical_bytes(envelope.header)
    signature = sign(identity, PURPOSE, envelope.signed)
    return b"".join((_PREFIX.pack(MAGIC, VERSION, len(header)), header, envelope.body, signature))


def open_envelope(data: bytes, limit_bytes: int = ENVELOPE_LIMIT_BYTES) -> SealedEnvelope:
    """Read the form of an envelope that came from outside; who signed it is for `SealedEnvelope.checked`.

    Guarantees:
        Every field satisfies its rule, and sealing the same envelope by the same identity gives `data` again: there is
        no second spelling. The body is not copied.

    Args:
        data: The whole envelope. `bytes`, because the body is read in place.
        limit_bytes: A longer envelope is refused before it is looked at.

    Raises:
        IntegrityError: One sentence that names the broken rule and nothing of the content.
    """
    header_end = _header_end(data, limit_bytes)
    header = _read_header(data[_PREFIX.size : header_end])
    body = memoryview(data)[header_end:-SIGNATURE_BYTES]
    if len(body) != header["body_bytes"]:
        raise _unreadable("has more or fewer bytes than its header declares")
    return SealedEnvelope(header, body, data[-SIGNATURE_BYTES:])


def _unreadable(rule: str) -> IntegrityError:
    return IntegrityError(f"the envelope {rule}", hint="it was altered on the way, or is of another version or sender")


def _signed_content(header: Mapping[str, Any], body: bytes | memoryview) -> dict[str, Any]:
    return {"version": VERSION, "header": dict(header), "body": hashlib.sha256(body).hexdigest()}


def _header_end(data: bytes, limit_bytes: int) -> int:
    """Size, magic, version and length of the header."""
    if len(data) > limit_bytes:
        raise _unreadable(f"has {len(data)} bytes and may have {limit_bytes}")
    if len(data) < _PREFIX.size + SIGNATURE_BYTES:
        raise _unreadable("is shorter than its fixed parts")
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise _unreadable("does not start with the magic bytes")
    if version != VERSION:
        raise _unreadable(f"is not of version {VERSION}")
    end: int = _PREFIX.size + length
    if length > HEADER_LIMIT_BYTES or end > len(data) - SIGNATURE_BYTES:
        raise _unreadable("has a header length that is too large")
    return end


def _read_header(data: bytes) -> dict[str, Any]:
    try:
        header = read_canonical(data)
    except ValueError as error:
        raise _unreadable(f"has a header that {error}") from None
    if not isinstance(header, dict) or header.keys() != _HEADER_RULES.keys():
        raise _unreadable("has an unknown or missing field")
    _check_fields(header)
    return header


def _check_fields(header: Mapping[str, Any]) -> None:
    for name, rule in _HEADER_RULES.items():
        if not rule.holds(header[name]):
            raise IntegrityError(f"`{name}` of an envelope must be {rule.must_be}")
