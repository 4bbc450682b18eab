import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from common.errors import ProtocolError
from common.secagg.keys import agree, public_bytes
from common.secagg.sealing import SEALED_BYTES, Channel, SharePair

EAST = X25519PrivateKey.from_private_bytes(b"e" * 32)
WEST = X25519PrivateKey.from_private_bytes(b"w" * 32)
OTHER = X25519PrivateKey.from_private_bytes(b"o" * 32)
ROSTER = "ab" * 32
PAIR = SharePair(b"m" * 33, b"s" * 33)


def sending(**changes) -> Channel:
    given = {"own": EAST, "other": public_bytes(WEST), "sender": "east", "recipient": "west", "roster_digest": ROSTER}
    return Channel(**given | changes)


def receiving(**changes) -> Channel:
    given = {"own": WEST, "other": public_bytes(EAST), "sender": "east", "recipient": "west", "roster_digest": ROSTER}
    return Channel(**given | changes)


def test_the_recipient_reads_what_was_sealed():
    sealed = sending().seal(PAIR, 7)
    assert len(sealed) == SEALED_BYTES == 82
    assert receiving().open(sealed, 7) == PAIR
    assert sending().seal(PAIR, 7) == sealed, "a site that was killed deals the same bytes again"


def test_it_is_the_standard_cipher_under_the_agreed_key():
    key = agree(EAST, public_bytes(WEST), "shares", "east", "west", ROSTER)
    plain = ChaCha20Poly1305(key).decrypt(bytes(11) + b"\x07", sending().seal(PAIR, 7), None)
    assert plain == b"m" * 33 + b"s" * 33


@pytest.mark.parametrize(
    "wrong",
    [
        {"own": OTHER},
        {"other": public_bytes(OTHER)},
        {"sender": "west", "recipient": "east"},
        {"sender": "north"},
        {"recipient": "north"},
        {"roster_digest": "cd" * 32},
    ],
    ids=["another recipient's key", "another sender's key", "other direction", "sender", "recipient", "roster"],
)
def test_nobody_else_reads_it_and_it_means_nothing_elsewhere(wrong):
    with pytest.raises(ProtocolError, match="sealed share"):
        receiving(**wrong).open(sending().seal(PAIR, 7), 7)


def test_a_share_is_for_one_round():
    with pytest.raises(ProtocolError, match="site or round"):
        receiving().open(sending().seal(PAIR, 7), 8)


@pytest.mark.parametrize("place", [0, 40, 65, 66, 81])
def test_a_flipped_bit_is_found(place):
    sealed = bytearray(sending().seal(PAIR, 7))
    sealed[place] ^= 1
    with pytest.raises(ProtocolError, match="changed"):
        receiving().open(bytes(sealed), 7)


@pytest.mark.parametrize("length", [0, 15, 81])
def test_a_cut_share_is_found(length):
    with pytest.raises(ProtocolError, match="changed"):
        receiving().open(sending().seal(PAIR, 7)[:length], 7)


def test_shares_do_not_print():
    assert "mmm" not in repr(PAIR)
