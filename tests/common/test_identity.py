import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.identity import SIGNATURE_BYTES, is_signed_by, new_identity, public_name, sign

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
