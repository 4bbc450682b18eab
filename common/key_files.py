"""Private keys on disk: read only where nobody else can read them, written once."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import ConfigError, IntegrityError
from common.files import write_new_durably
from common.private_files import PRIVATE_FILE, read_private_file

_IDENTITY_BYTES = 32
_LIMIT_BYTES = 4096


def read_identity(path: Path) -> Ed25519PrivateKey:
    """An Ed25519 key from its 32 raw bytes.

    Raises:
        ConfigError: When it is missing, or others may read it.
        IntegrityError: When the file is no key. It is never replaced: others know this site or coordinator by it.
    """
    content = read_private_file(path, _LIMIT_BYTES)
    if len(content) != _IDENTITY_BYTES:
        raise IntegrityError(
            f"the identity {path} has {len(content)} bytes instead of {_IDENTITY_BYTES}",
            hint="restore it from a backup, or enrol anew with another identity",
        )
    return Ed25519PrivateKey.from_private_bytes(content)


def write_identity(path: Path, identity: Ed25519PrivateKey) -> None:
    """Write an Ed25519 key where no file is yet, 0600."""
    _write_key(path, identity.private_bytes_raw())


def read_ec_key(path: Path, curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    """An EC key from PEM (PKCS #8, no password).

    Raises:
        ConfigError: When it is missing, or others may read it.
        IntegrityError: When the file is no such key, or one of another curve.
    """
    content = read_private_file(path, _LIMIT_BYTES)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, curve):
        raise IntegrityError(f"the file {path} holds no {curve.name} key in PEM", hint="restore it from a backup")
    return key


def write_ec_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write an EC key where no file is yet, 0600."""
    form, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write_key(path, key.private_bytes(serialization.Encoding.PEM, form, no_password))


def _write_key(path: Path, content: bytes) -> None:
    try:
        write_new_durably(path, content, mode=PRIVATE_FILE)
    except FileExistsError:
        raise ConfigError(f"there is a key at {path} already, and a key is never replaced", hint="keep it") from None
