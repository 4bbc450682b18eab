"""Who calls: an enrolled site's node or a stranger, decided by the head of a request, before its body is read.

The SuperLink asks the same (`flwr.superlink.routers.fleet.node_auth`), but only once it has the whole body. Here a
stranger costs a look into a set, and a claim to be a node one verified signature: half a millisecond.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from server.gateway.rules import Head

NodeKeys = Callable[[], Collection[bytes]]
"""The node keys of the sites that are enrolled now: PEM, without white space around it."""

LEAST_AGE_SECONDS, MOST_AGE_SECONDS = -5.0, 305.0
"""How old a signed time may be; Flower's own tolerance, with which a test compares it."""

_KEY, _STAMP, _SIGNATURE = b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"


def calling_node(head: Head, keys: Collection[bytes], now: datetime | None = None) -> bytes | None:
    """Name the enrolled node that signed the time in a request's head.

    Guarantees:
        A key comes out only when it is one of `keys` and signed the time that is told, and that time is one that the
        SuperLink accepts too. Nothing that is in the headers raises.

    Edge cases:
        A head may be repeated within the tolerance by whoever has read it; TLS keeps it from all but the node.

    Args:
        head: From `server.gateway.rules.judge`.
        keys: As `NodeKeys` gives them.
        now: The present; the machine's clock where it is left out.

    Returns:
        The key, or None for a stranger.
    """
    values = dict(head.forwarded)
    try:
        key = b64decode(values[_KEY], validate=True).strip()
        signature = b64decode(values[_SIGNATURE], validate=True)
        signed_at = datetime.fromisoformat(values[_STAMP].decode("ascii"))
        age = ((now or datetime.now(UTC)) - signed_at).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):  # missing, not base64, no time, or one without its zone
        return None
    if key not in keys or not LEAST_AGE_SECONDS < age < MOST_AGE_SECONDS:
        return None
    return key if _has_signed(key, values[_STAMP], signature) else None


def _has_signed(key: bytes, stamp: bytes, signature: bytes) -> bool:
    public = _public_key(key)
    if public is None:
        return False
    try:
        public.verify(signature, stamp, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=1024)
def _public_key(pem: bytes) -> EllipticCurvePublicKey | None:
    """Read an enrolled key once."""
    try:
        public = load_pem_public_key(pem)
    except ValueError:
        return None
    return public if isinstance(public, EllipticCurvePublicKey) else None
