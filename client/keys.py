"""A site's keys on disk: its identity, and its node key for Flower's node authentication."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.home import SiteHome
from common.files import write_durably
from common.identity import new_identity
from common.key_files import read_ec_key, read_identity, write_ec_key, write_identity
from common.private_files import PRIVATE_FILE

_FILE_NAME = "identity.key"


def create_keys(home: SiteHome) -> None:
    """Draw both keys of a new site.

    Raises:
        ConfigError: When there is one already; it is kept.
    """
    write_identity(home.identity_key, new_identity())
    write_ec_key(home.node_key, ec.generate_private_key(ec.SECP384R1()))


def site_identity(home: SiteHome) -> Ed25519PrivateKey:
    """Who this site is; see `read_identity` for what is refused."""
    return read_identity(home.identity_key)


def node_key(home: SiteHome) -> ec.EllipticCurvePrivateKey:
    """The key by which Flower knows this site's node, EC P-384 as `flwr.supercore.primitives.asymmetric` draws it.

    It is a key of its own, because Flower signs with it what Flower likes.
    """
    return read_ec_key(home.node_key, ec.SECP384R1)


def load_or_create_identity(folder: Path) -> Ed25519PrivateKey:
    """A virtual site's Ed25519 key; drawn once, kept in a file that only its owner may read.

    Raises:
        ConfigError: When others may read the file.
        IntegrityError: When the file is no key. It is never replaced: the roster names this one.
    """
    path = folder / _FILE_NAME
    if not path.exists():
        save_identity(folder, new_identity())
    return read_identity(path)


def save_identity(folder: Path, identity: Ed25519PrivateKey) -> None:
    """Write a virtual site's identity down, in a file that only its owner may read."""
    write_durably(folder / _FILE_NAME, identity.private_bytes_raw(), mode=PRIVATE_FILE)
