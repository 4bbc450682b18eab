import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.secagg import keys
from common.secagg.keys import KEY_BYTES, SessionSecret, agree, derive, gives_secrets, public_bytes, seed_commitment

P = 2**255 - 19
A24 = 121665


def by_hand(secret: bytes, *labels: object) -> bytes:
    """RFC 5869 with SHA-256, an empty salt and one block of output, from HMAC alone."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    info = json.dumps(["cloister secure aggregation", 1, *labels], separators=(",", ":")).encode()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


@settings(max_examples=20)
@given(secret=st.binary(min_size=1, max_size=64), labels=st.lists(st.one_of(st.text(), st.integers()), max_size=4))
def test_keys_are_derived_as_the_standard_says(secret, labels):
    assert derive(secret, *labels) == by_hand(secret, *labels)


def test_a_derived_key_for_good():
    """Written down: another version must derive the same, or the parties' masks no longer cancel."""
    assert derive(bytes(32), "mask key", 1).hex() == "f7f53c8ff1a41a527490426a2705a82350eba6f983c1bde6b7ccfe4a82045eb5"


@pytest.mark.parametrize(
    ("one", "other"), [(("a", "b"), ("ab",)), (("a", 1), ("a", "1")), (("a",), ("a", "")), (('a","b',), ("a", "b"))]
)
def test_labels_cannot_run_into_each_other(one, other):
    assert derive(bytes(32), *one) != derive(bytes(32), *other)


# --- agreement ---

# RFC 7748, section 6.1: Bob's keys, Alice's public key, and what they share.
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def ladder(scalar: bytes, point: bytes) -> bytes:
    """X25519 by RFC 7748, section 5, in plain integers."""
    bits = bytearray(scalar)
    bits[0] &= 248
    bits[31] = bits[31] & 127 | 64
    k, u = int.from_bytes(bits, "little"), int.from_bytes(point, "little") % 2**255 % P
    x2, z2, x3, z3 = 1, 0, u, 1
    for place in reversed(range(255)):
        if k >> place & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        e = a * a - b * b
        x3, z3 = (d * a + c * b) ** 2 % P, u * (d * a - c * b) ** 2 % P
        x2, z2 = a * a * b * b % P, e * (a * a + A24 * e) % P
        if k >> place & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def test_the_vector_of_rfc_7748():
    bob = X25519PrivateKey.from_private_bytes(BOB)
    assert public_bytes(bob) == ladder(BOB, (9).to_bytes(32, "little")) == BOB_PUBLIC
    assert ladder(BOB, ALICE_PUBLIC) == SHARED
    assert agree(bob, ALICE_PUBLIC, "purpose") == by_hand(SHARED, "purpose")


@settings(max_examples=5)
@given(one=st.binary(min_size=32, max_size=32), other=st.binary(min_size=32, max_size=32))
def test_both_ends_agree_and_the_ladder_with_them(one, other):
    left, right = X25519PrivateKey.from_private_bytes(one), X25519PrivateKey.from_private_bytes(other)
    shared = by_hand(ladder(one, public_bytes(right)), "shares", "a")
    assert agree(left, public_bytes(right), "shares", "a") == agree(right, public_bytes(left), "shares", "a") == shared
    assert agree(left, public_bytes(right), "shares", "b") != shared


# --- keys that give no secret ---

LOW_ORDER = sorted(keys._LOW_ORDER)


@pytest.mark.parametrize("point", LOW_ORDER, ids=hex)
def test_points_of_low_order_give_zero_and_are_refused(point):
    """By the ladder, which shows that they belong in the list; and no key may be agreed with one."""
    key = point.to_bytes(KEY_BYTES, "little")
    assert ladder(BOB, key) == bytes(32)
    assert not gives_secrets(key)
    with pytest.raises(ProtocolError, match="no shared secret"):
        agree(X25519PrivateKey.from_private_bytes(BOB), key)


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ProtocolError, match="no shared secret"):
        agree(X25519PrivateKey.from_private_bytes(BOB), bytes(31))


@pytest.mark.parametrize("point", [P, P + 1, P + 9, 2**255 - 1, 2**255 + 9, 2**256 - 1], ids=hex)
def test_a_key_has_one_spelling(point):
    """X25519 takes them for other numbers: a repeated key could hide behind one."""
    key = point.to_bytes(KEY_BYTES, "little")
    assert ladder(BOB, key) == ladder(BOB, (point % 2**255 % P).to_bytes(KEY_BYTES, "little"))
    assert not gives_secrets(key)


def test_true_keys_give_secrets():
    assert all(gives_secrets(public_bytes(X25519PrivateKey.generate())) for _ in range(50))
    assert gives_secrets((9).to_bytes(KEY_BYTES, "little"))
    assert gives_secrets((P - 2).to_bytes(KEY_BYTES, "little"))


# --- a session's secret ---


def every_key(secret: SessionSecret) -> list[bytes]:
    """All that follows from a session's secret for two rounds."""
    derived = [secret.channel_key().private_bytes_raw()]
    for number in (1, 2):
        derived += [secret.mask_key_bytes(number), secret.self_seed(number)]
        derived += secret.coefficients("mask key", number, 3) + secret.coefficients("self seed", number, 3)
    return derived


def test_no_two_keys_of_a_session_are_equal():
    derived = every_key(SessionSecret(bytes(32), "5e" * 32))
    assert len(set(derived)) == len(derived) == 17
    assert {len(key) for key in derived} == {KEY_BYTES}


def test_the_same_secret_gives_the_same_keys_and_another_session_others():
    first = every_key(SessionSecret(bytes(32), "5e" * 32))
    assert first == every_key(SessionSecret(bytes(32), "5e" * 32))
    assert not set(first) & set(every_key(SessionSecret(bytes(32), "5f" * 32)))
    assert not set(first) & set(every_key(SessionSecret(bytes([1]) * 32, "5e" * 32)))


def test_a_mask_key_is_the_key_of_its_bytes():
    secret = SessionSecret(bytes(32), "5e" * 32)
    assert secret.mask_key(3).private_bytes_raw() == secret.mask_key_bytes(3)
    assert secret.coefficients("mask key", 1, 0) == []


def test_secrets_are_drawn_and_never_shown():
    one, other = SessionSecret.draw(), SessionSecret.draw()
    assert one != other
    assert len(one) == KEY_BYTES
    assert one.hex() not in repr(SessionSecret(one, "5e" * 32)) == "SessionSecret(hidden)"


def test_a_commitment_is_to_one_seed():
    assert seed_commitment(bytes(32)) == hashlib.sha256(b"cloister self-mask seed 1" + bytes(32)).digest()
    assert seed_commitment(bytes(32)) != seed_commitment(bytes([1]) + bytes(31))
