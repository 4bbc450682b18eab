"""A small file that is replaced in one step and shows when it was damaged.

    canonical JSON header | newline | payload | SHA-256 of all that

The checksum finds damage. It does not stop somebody who edits the file or restores an older copy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from common.canonical import canonical_bytes
from common.files import write_durably

_CHECKSUM_BYTES = 32
_PRIVATE_MODE = 0o600


def write_sealed(path: Path, header: dict[str, Any], payload: bytes = b"") -> None:
    """Replace the file durably; only its owner may read it."""
    body = canonical_bytes(header) + b"\n" + payload
    write_durably(path, body + hashlib.sha256(body).digest(), mode=_PRIVATE_MODE)


def read_sealed(path: Path) -> tuple[bytes, bytes] | None:
    """Header and payload, or None when the file is damaged."""
    content = path.read_bytes()
    body = content[:-_CHECKSUM_BYTES]
    if hashlib.sha256(body).digest() != content[-_CHECKSUM_BYTES:]:
        return None
    header, _, payload = body.partition(b"\n")
    return header, payload
