"""A node's key for Flower's node authentication, as seen from outside: EC P-384, in PEM.

Flower knows a node by this key and lets it sign the time of each call (`flwr.supercore.primitives.asymmetric`).
Bodies are signed by the site's identity, not by this key.
"""

from __future__ import annotations

from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AfterValidator

from common.canonical import canonical_bytes

# What is signed never looks like a time, so a proof cannot be replayed as one of Flower's calls, or the reverse.
_PURPOSE = "cloister node key"
_SCHEME = ec.ECDSA(hashes.SHA384())


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half, as Flower registers it."""
    return _pem(key.public_key())


def prove_possession(key: ec.EllipticCurvePrivateKey, content: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Sign a JSON value, to show that the private half is at hand."""
    return key.sign(_proof_bytes(content), _SCHEME)


def is_proof(public: str, content: Any, proof: bytes) -> bool:  # noqa: ANN401 - any JSON value
    """Whether the holder of a node key signed this value; any fault is a plain no."""
    key = _load(public)
    if key is None:
        return False
    try:
        key.verify(proof, _proof_bytes(content), _SCHEME)
    except InvalidSignature:
        return False
    return True


def _checked(pem: str) -> str:
    if _load(pem) is None:
        raise ValueError("must be one public EC P-384 key in PEM")
    return pem


NodePublicKey = Annotated[str, AfterValidator(_checked)]
"""A public EC P-384 key in the one PEM spelling that Flower uses."""


def _load(pem: str) -> ec.EllipticCurvePublicKey | None:
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return None
    # One spelling: no second key behind the first, no other line lengths, no curve spelled out.
    return key if _pem(key) == pem else None


def _pem(key: ec.EllipticCurvePublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode("ascii")


def _proof_bytes(content: Any) -> bytes:  # noqa: ANN401 - any JSON value
    return canonical_bytes([_PURPOSE, 1, content])
