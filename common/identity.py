"""Who a site is: an Ed25519 key whose public half stands in the plan's roster."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.canonical import canonical_bytes

SIGNATURE_BYTES = 64


def new_identity() -> Ed25519PrivateKey:
    """A fresh identity, from the operating system's randomness."""
    return Ed25519PrivateKey.generate()


def public_name(identity: Ed25519PrivateKey) -> str:
    """The public half as a roster names it: 64 hexadecimal digits."""
    return identity.public_key().public_bytes_raw().hex()


def sign(identity: Ed25519PrivateKey, purpose: str, content: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Sign a JSON value for one purpose, `[64]`; a signature for one purpose is none for another."""
    return identity.sign(_signed_bytes(purpose, content))


def is_signed_by(public: str, purpose: str, content: Any, signature: bytes) -> bool:  # noqa: ANN401 - any JSON value
    """Whether the holder of a public key signed this value for this purpose; any fault is a plain no."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, _signed_bytes(purpose, content))
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed_bytes(purpose: str, content: Any) -> bytes:  # noqa: ANN401 - any JSON value
    return canonical_bytes(["cloister signature", 1, purpose, content])


def is_sound(public: str) -> bool:
    """Whether a public key is spelled in the one way, and is none for which anybody could sign.

    A point of order 1, 2, 4 or 8 takes one signature for any message; there are five such y coordinates. Bytes that are
    no point at all take no signature, and need no check here.

    Source: RFC 8032, section 5.1.3 (decoding); Chalkias, Garillot & Nikolaenko 2020, "Taming the many EdDSAs".
    """
    y = int.from_bytes(bytes.fromhex(public), "little") & ((1 << 255) - 1)
    return y < _FIELD and y not in _SMALL_ORDER


_FIELD = 2**255 - 19
_ORDER_EIGHT = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _ORDER_EIGHT, _FIELD - _ORDER_EIGHT})
