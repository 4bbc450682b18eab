"""A site's identity on disk."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import IntegrityError
from common.files import write_durably
from common.identity import new_identity

_FILE_NAME = "identity.key"
_KEY_BYTES = 32
_PRIVATE_MODE = 0o600


def load_or_create_identity(folder: Path) -> Ed25519PrivateKey:
    """The site's Ed25519 key; drawn once, kept in a file that only its owner may read.

    Raises:
        IntegrityError: When the file is no key. It is never replaced: the roster names this one.
    """
    path = folder / _FILE_NAME
    if not path.exists():
        save_identity(folder, new_identity())
    content = path.read_bytes()
    if len(content) != _KEY_BYTES:
        raise IntegrityError(
            f"the identity {path} has {len(content)} bytes instead of {_KEY_BYTES}",
            hint="restore it from a backup, or enrol this site anew",
        )
    return Ed25519PrivateKey.from_private_bytes(content)


def save_identity(folder: Path, identity: Ed25519PrivateKey) -> None:
    """Write an identity down, in a file that only its owner may read."""
    write_durably(folder / _FILE_NAME, identity.private_bytes_raw(), mode=_PRIVATE_MODE)
