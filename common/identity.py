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
