"""A small file that is replaced in one step and shows when it was damaged.

    canonical JSON header | newline | payload | SHA-256 of all that

The checksum finds damage. It does not stop somebody who edits the file or restores an older copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from common.canonical import canonical_bytes
from common.config import StrictConfig
from common.errors import IntegrityError
from common.files import write_durably

Entry = TypeVar("Entry", bound=StrictConfig)

_CHECKSUM_BYTES = 32
_PRIVATE_MODE = 0o600


def write_sealed(path: Path, header: dict[str, Any], payload: bytes = b"") -> None:
    """Replace the file durably; only its owner may read it."""
    body = canonical_bytes(header) + b"\n" + payload
    write_private(path, body + hashlib.sha256(body).digest())


def write_private(path: Path, content: bytes) -> None:
    """As `write_sealed`, for bytes whose digest is kept elsewhere."""
    write_durably(path, content, mode=_PRIVATE_MODE)


def read_entry(
    path: Path, kind: type[Entry], unfit: Callable[[str], IntegrityError], belongs: Callable[[Entry], bool]
) -> tuple[Entry, bytes]:
    """Header as an object of this kind, and payload.

    Args:
        path: The file; must exist.
        kind: What the header is.
        unfit: The error for a broken rule.
        belongs: Whether the header is of this plan and site.

    Raises:
        IntegrityError: As `unfit` makes it, when the file is damaged, of another version, or belongs elsewhere.
    """
    content = read_sealed(path)
    if content is None:
        raise unfit("is damaged")
    header, payload = content
    try:
        entry = kind.model_validate_json(header)
    except ValidationError:
        raise unfit("is not one that this version writes") from None
    if not belongs(entry):
        raise unfit("belongs to another plan or site")
    return entry, payload


def read_sealed(path: Path) -> tuple[bytes, bytes] | None:
    """Header and payload, or None when the file is damaged."""
    content = path.read_bytes()
    body = content[:-_CHECKSUM_BYTES]
    if hashlib.sha256(body).digest() != content[-_CHECKSUM_BYTES:]:
        return None
    header, _, payload = body.partition(b"\n")
    return header, payload
