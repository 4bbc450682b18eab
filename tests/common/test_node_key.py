import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import TypeAdapter, ValidationError

from common.node_key import NodePublicKey, is_proof, prove_possession, public_pem

KEY = ec.generate_private_key(ec.SECP384R1())
PEM = public_pem(KEY)


def pem_of(key) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def test_the_spelling_is_flowers():
    flower = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    assert flower.public_key_to_bytes(KEY.public_key()).decode() == PEM
    assert flower.bytes_to_public_key(PEM.encode()) == KEY.public_key()
    assert isinstance(flower.generate_key_pairs()[0].curve, type(KEY.curve))


def test_a_proof_is_of_one_key_and_one_content():
    proof = prove_possession(KEY, {"site": "north"})
    assert is_proof(PEM, {"site": "north"}, proof)
    assert not is_proof(PEM, {"site": "south"}, proof)
    assert not is_proof(PEM, {"site": "north"}, proof[:-1])
    assert not is_proof(PEM, {"site": "north"}, b"")
    assert not is_proof(public_pem(ec.generate_private_key(ec.SECP384R1())), {"site": "north"}, proof)
    assert not is_proof("no key", {"site": "north"}, proof)


def test_what_flower_lets_the_key_sign_is_no_proof():
    flower = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    for message in (b"2026-11-05T09:30:00+00:00", b'{"site":"north"}'):
        signature = flower.sign_message(KEY, message)
        assert not is_proof(PEM, {"site": "north"}, signature)
        assert not flower.verify_signature(KEY.public_key(), message, prove_possession(KEY, {"site": "north"}))


SECRET = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
NUMBERS = KEY.public_key().public_numbers()
# The same point in its short form: another spelling of the same key.
SHORT = KEY.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "no key",
        PEM[:-1],
        PEM + "\n",
        "\n" + PEM,
        PEM + PEM,
        PEM.replace("\n", "\r\n"),
        PEM.replace("PUBLIC", "PRIVATE"),
        PEM.replace("A", "Ä", 1),
        PEM[:60] + PEM[61:],
        SECRET,
        PEM + SECRET,
        SHORT.hex(),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(ec.generate_private_key(ec.SECP521R1())),
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(rsa.generate_private_key(65537, 2048)),
    ],
    ids=lambda _: "pem",  # a key that is drawn anew must not name its test
)
def test_what_is_no_single_public_p384_key_is_refused(pem):
    with pytest.raises(ValidationError, match="must be one public EC P-384 key"):
        TypeAdapter(NodePublicKey).validate_python(pem)
    assert not is_proof(pem, [1], prove_possession(KEY, [1]))


def test_a_good_one_passes_as_it_is():
    assert TypeAdapter(NodePublicKey).validate_python(PEM) == PEM
