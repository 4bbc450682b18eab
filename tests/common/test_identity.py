import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.identity import _SMALL_ORDER, SIGNATURE_BYTES, is_signed_by, is_sound, new_identity, public_name, sign

# RFC 8032, section 7.1, test 1.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@pytest.fixture
def identity():
    return Ed25519PrivateKey.from_private_bytes(SECRET)


def test_a_name_is_the_public_key_of_the_standard(identity):
    assert public_name(identity) == PUBLIC


def test_identities_are_drawn():
    assert public_name(new_identity()) != public_name(new_identity())


def test_a_signature_is_over_canonical_bytes_with_the_purpose(identity):
    signature = sign(identity, "a purpose", {"b": 1, "a": [2]})
    assert len(signature) == SIGNATURE_BYTES
    message = b'["cloister signature",1,"a purpose",{"a":[2],"b":1}]'
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(PUBLIC)).verify(signature, message)
    assert is_signed_by(PUBLIC, "a purpose", {"a": [2], "b": 1}, signature)


@pytest.mark.parametrize(
    ("public", "purpose", "content"),
    [
        ("00" * 32, "purpose", [1]),
        (PUBLIC, "other", [1]),
        (PUBLIC, "purpose", [2]),
        (PUBLIC, "purpose", ["1"]),
        (PUBLIC[:-2], "purpose", [1]),
        ("no hexadecimal digits", "purpose", [1]),
        ("", "purpose", [1]),
    ],
)
def test_any_other_holder_purpose_or_content_is_a_plain_no(identity, public, purpose, content):
    signature = sign(identity, "purpose", [1])
    assert is_signed_by(PUBLIC, "purpose", [1], signature)
    assert not is_signed_by(public, purpose, content, signature)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_what_is_no_signature_is_a_plain_no(signature):
    assert not is_signed_by(PUBLIC, "purpose", [1], signature)


def test_a_flipped_bit_is_a_plain_no(identity):
    signature = bytearray(sign(identity, "purpose", [1]))
    signature[40] ^= 1
    assert not is_signed_by(PUBLIC, "purpose", [1], bytes(signature))


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def doubled(point: tuple[int, int]) -> tuple[int, int]:
    """On the curve -x² + y² = 1 + d x² y², by the addition law of RFC 8032, section 5.1.4, in fractions."""
    x, y = point
    product = D * x * x * y * y % P
    return 2 * x * y * pow(1 + product, -1, P) % P, (y * y + x * x) * pow(1 - product, -1, P) % P


def x_of(y: int) -> int:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if (root * root - square) % P:
        root = root * pow(2, (P - 1) // 4, P) % P
    assert (root * root - square) % P == 0
    return root


@pytest.mark.parametrize("y", sorted(_SMALL_ORDER))
def test_keys_of_small_order_are_unsound_in_every_spelling(y: int) -> None:
    point = (x_of(y), y)
    for _ in range(3):
        point = doubled(point)
    assert point == (0, 1), "eight times the point is the neutral one"
    for top_bit in (0, 1 << 255):
        assert not is_sound((y | top_bit).to_bytes(32, "little").hex())


def test_a_key_has_one_spelling_and_real_ones_are_sound() -> None:
    assert not is_sound((P + 3).to_bytes(32, "little").hex())
    assert all(is_sound(public_name(new_identity())) for _ in range(20))


def test_without_the_check_one_signature_would_do_for_everything() -> None:
    neutral = "01" + "00" * 31
    forged = bytes.fromhex(neutral) + bytes(32)
    assert is_signed_by(neutral, "any purpose", ["any content"], forged)
    assert not is_sound(neutral)
