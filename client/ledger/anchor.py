"""The anchor: how far the ledger had come, in another folder, so that an older ledger does not fit it.

It also names the machine, so that a copy of both on another machine is refused there.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from client.ledger.rows import NOTHING_BEFORE, Row, not_now, unfit
from common.canonical import canonical_bytes
from common.config import StrictConfig
from common.files import write_durably
from common.identity import is_signed_by, sign
from common.plan import Hexadecimal

_PURPOSE = "ledger anchor"
_PRIVATE_MODE = 0o600
_LONGEST_BYTES = 4096
_MACHINE_ID = Path("/etc/machine-id")
_HOST_FILE = "host.id"


class Anchor(StrictConfig):
    """The last entry that was written in full: its number, its hash, and the machine; number 0 before the first."""

    format_version: Literal[1] = 1
    sequence: Annotated[int, Field(ge=0)] = 0
    head: Hexadecimal = NOTHING_BEFORE
    host: Hexadecimal

    @classmethod
    def at(cls, row: Row, host: str) -> Anchor:
        """The anchor of a ledger that ends with this entry."""
        return cls(sequence=row.sequence, head=row.hash, host=host)


class _SignedAnchor(StrictConfig):
    anchor: Anchor
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


def write_anchor(path: Path, anchor: Anchor, identity: Ed25519PrivateKey) -> None:
    """Replace the anchor durably.

    Raises:
        TryAgainError: When the disk does not take it; the old one is still there.
    """
    content: dict[str, Any] = anchor.model_dump(mode="json")
    signed = {"anchor": content, "signature": sign(identity, _PURPOSE, content).hex()}
    try:
        write_durably(path, canonical_bytes(signed) + b"\n", mode=_PRIVATE_MODE)
    except OSError as error:
        raise not_now(path, error.strerror) from None


def read_anchor(path: Path, public: str) -> Anchor | None:
    """The anchor, or None where there is none.

    Raises:
        IntegrityError: When it is damaged, or not signed by this site.
        TryAgainError: When it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST_BYTES)
    except OSError as error:
        raise not_now(path, error.strerror) from None
    try:
        signed = _SignedAnchor.model_validate_json(content)
    except ValidationError:
        raise unfit(f"has a damaged anchor, {path}") from None
    if not is_signed_by(public, _PURPOSE, signed.anchor.model_dump(mode="json"), bytes.fromhex(signed.signature)):
        raise unfit(f"has an anchor, {path}, that this site did not sign")
    return signed.anchor


def host_identifier(folder: Path) -> str:
    """A name for this machine, 64 hexadecimal digits; it tells nothing about the machine.

    A hash of the operating system's machine id; where there is none (many containers), of random bytes in a file that
    is made in `folder`. Such a file is used from then on, so that a machine id that appears later changes nothing.

    Edge cases:
        A clone of the whole disk has the same name: nothing on it tells the two apart. So has a copy that takes the
        folder with such a file along.

    Args:
        folder: Where the file is or goes: the anchor's folder.

    Raises:
        TryAgainError: When neither can be read nor the file be made.
    """
    path = folder / _HOST_FILE
    try:
        if path.exists():
            content = path.read_bytes()
        elif (known := _machine_id()) is not None:
            content = known
        else:
            content = secrets.token_hex(32).encode()
            write_durably(path, content, mode=_PRIVATE_MODE)
    except OSError as error:
        raise not_now(path, error.strerror) from None
    return hashlib.sha256(b"cloister host 1\n" + content).hexdigest()


def _machine_id() -> bytes | None:
    try:
        return _MACHINE_ID.read_bytes().strip() or None
    except OSError:
        return None
