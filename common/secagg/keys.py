"""Every key of a session, derived from one secret of the site, and what two sites' keys give together.

A site draws one secret a session and derives all else from it by HKDF, so that a site that was killed answers the same
request with the same bytes. The secret never leaves the site and is never shared out; what may be opened in a round is
that round's mask key or self-mask seed, from which nothing else follows.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.canonical import canonical_bytes
from common.errors import ProtocolError

KEY_BYTES = 32

_FIELD = (1 << 255) - 19
# Points of order 1, 2, 4 and 8 on the curve and its twist, by their u-coordinate: with any key they give zero.
_LOW_ORDER = {
    0,
    1,
    _FIELD - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}

Label = str | int


def derive(secret: bytes, *labels: Label) -> bytes:
    """32 bytes by HKDF-SHA256; different labels give unrelated keys (RFC 5869)."""
    info = canonical_bytes(["cloister secure aggregation", 1, *labels])
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


def public_bytes(key: X25519PrivateKey) -> bytes:
    """The public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


def gives_secrets(public: bytes) -> bool:
    """Whether 32 bytes are the one spelling of a public key with which every key holder has a secret.

    Source: RFC 7748, sections 5 (a number not below 2^255 - 19, or the top bit, spells another key) and 6.1.
    """
    point = int.from_bytes(public, "little")
    return point < _FIELD and point not in _LOW_ORDER


def agree(own: X25519PrivateKey, other: bytes, *labels: Label) -> bytes:
    """The 32 bytes that two key holders share for one purpose, by X25519 and HKDF.

    Raises:
        ProtocolError: When the other key is no point that gives a secret (RFC 7748, section 6.1).
    """
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise ProtocolError("a public key gives no shared secret") from None
    return derive(shared, *labels)


def seed_commitment(seed: bytes) -> bytes:
    """What pins a self-mask seed before it is opened: 32 bytes that say nothing about 32 random ones."""
    return hashlib.sha256(b"cloister self-mask seed 1" + seed).digest()


class SessionSecret:
    """One site's secret of one session, and the keys that follow from it.

    Guarantees:
        The same secret gives the same keys. It is not shown by `repr`.

    Args:
        secret: 32 bytes from `draw`.
        session: The session's id; a secret used for another one gives other keys.
    """

    def __init__(self, secret: bytes, session: str) -> None:
        self._secret = secret
        self._session = session

    def __repr__(self) -> str:
        return "SessionSecret(hidden)"

    @staticmethod
    def draw() -> bytes:
        """32 bytes from the operating system."""
        return secrets.token_bytes(KEY_BYTES)

    def channel_key(self) -> X25519PrivateKey:
        """The key under which peers encrypt shares to this site."""
        return X25519PrivateKey.from_private_bytes(self._derive("channel key"))

    def mask_key_bytes(self, round_number: int) -> bytes:
        """The secret half of a round's mask key: opened when this site's input is missing from the round."""
        return self._derive("mask key", round_number)

    def mask_key(self, round_number: int) -> X25519PrivateKey:
        """The key from which a round's masks with each peer follow."""
        return X25519PrivateKey.from_private_bytes(self.mask_key_bytes(round_number))

    def self_seed(self, round_number: int) -> bytes:
        """The seed of a round's self mask: opened when this site's input is in the round."""
        return self._derive("self seed", round_number)

    def coefficients(self, kind: str, round_number: int, count: int) -> list[bytes]:
        """Coefficients that share one of the two out."""
        return [self._derive("coefficient", kind, round_number, place) for place in range(1, count + 1)]

    def _derive(self, *labels: Label) -> bytes:
        return derive(self._secret, self._session, *labels)


def keys_size(rounds: int) -> int:
    """Bytes of one site's keys for so many rounds."""
    return KEY_BYTES + 2 * KEY_BYTES * rounds
