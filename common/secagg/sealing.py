"""Shares on their way: one round's two shares of one site, encrypted to one peer."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from common.errors import ProtocolError
from common.secagg.keys import agree
from common.secagg.shamir import SHARE_BYTES

_NONCE_BYTES = 12
_TAG_BYTES = 16
SEALED_BYTES = 2 * SHARE_BYTES + _TAG_BYTES


@dataclass(frozen=True, repr=False)
class SharePair:
    """What one holder keeps of one site for one round; it gives away one of the two and never both.

    Attributes:
        mask_key: Share of the round's mask key.
        self_seed: Share of the round's self-mask seed.
    """

    mask_key: bytes
    self_seed: bytes


class Channel:
    """Encryption from one site to another, for one session.

    Guarantees:
        Only the two sites can read or make what is sealed, and it opens for this sender, this recipient, this roster of
        keys and the round it was sealed for, and for nothing else.

    Args:
        own: Channel key of one end.
        other: Public channel key of the other end.
        sender: Name of the site that deals.
        recipient: Name of the site that keeps.
        roster_digest: Digest of the session's keys.
    """

    def __init__(self, own: X25519PrivateKey, other: bytes, sender: str, recipient: str, roster_digest: str) -> None:
        self._cipher = ChaCha20Poly1305(agree(own, other, "shares", sender, recipient, roster_digest))

    def seal(self, pair: SharePair, round_number: int) -> bytes:
        """Encrypt a pair, `SEALED_BYTES` long.

        The nonce is the round number: the key belongs to one direction of one session, and a round has one pair; when
        a killed site deals again, it deals the same pair.
        """
        return self._cipher.encrypt(_nonce(round_number), pair.mask_key + pair.self_seed, None)

    def open(self, sealed: bytes, round_number: int) -> SharePair:
        """Decrypt a pair.

        Raises:
            ProtocolError: When it was changed, or sealed by another site, for another one or for another round.
        """
        try:
            plain = self._cipher.decrypt(_nonce(round_number), sealed, None)
        except InvalidTag:
            raise ProtocolError("a sealed share was changed, or is for another site or round") from None
        return SharePair(plain[:SHARE_BYTES], plain[SHARE_BYTES:])


def _nonce(round_number: int) -> bytes:
    return round_number.to_bytes(_NONCE_BYTES, "big")
