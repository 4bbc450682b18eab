import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from common.errors import ConfigError, IntegrityError
from common.identity import new_identity, public_name
from common.key_files import read_ec_key, read_identity, write_ec_key, write_identity

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
NO_PASSWORD, PASSWORD = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"x")


def test_keys_come_back_and_only_their_owner_may_read_them(tmp_path):
    identity, key = new_identity(), ec.generate_private_key(ec.SECP384R1())
    write_identity(tmp_path / "identity.key", identity)
    write_ec_key(tmp_path / "node.key", key)
    assert public_name(read_identity(tmp_path / "identity.key")) == public_name(identity)
    assert read_ec_key(tmp_path / "node.key", ec.SECP384R1).private_numbers() == key.private_numbers()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_key_is_never_replaced(tmp_path):
    path = tmp_path / "a.key"
    write_identity(path, new_identity())
    before = path.read_bytes()
    for write in (
        lambda: write_identity(path, new_identity()),
        lambda: write_ec_key(path, ec.generate_private_key(ec.SECP256R1())),
    ):
        with pytest.raises(ConfigError, match="never replaced"):
            write()
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_keys_open_to_others_are_refused(tmp_path, mode):
    path = tmp_path / "a.key"
    write_identity(path, new_identity())
    path.chmod(mode)
    for read in (read_identity, lambda path: read_ec_key(path, ec.SECP384R1)):
        with pytest.raises(ConfigError, match=f"mode {mode:04o}") as caught:
            read(path)
        assert caught.value.hint == f"chmod 600 {path}"


def pem(key, encryption=NO_PASSWORD):
    return key.private_bytes(PEM, PKCS8, encryption)


GOOD = pem(ec.generate_private_key(ec.SECP384R1()))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        bytes(32),
        GOOD[:100],
        pem(ec.generate_private_key(ec.SECP384R1()), PASSWORD),
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=lambda _: "content",  # a key that is drawn anew must not name its test
)
def test_what_is_no_key_of_the_curve_is_refused(tmp_path, content):
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="holds no secp384r1 key in PEM"):
        read_ec_key(path, ec.SECP384R1)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_identity_has_32_bytes(tmp_path, length):
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(length))
    with pytest.raises(IntegrityError, match=f"has {length} bytes instead of 32"):
        read_identity(path)
