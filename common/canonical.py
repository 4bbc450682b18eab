"""One byte string for one value, so that a digest means the same at every party."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


def canonical_bytes(value: Any) -> bytes:  # noqa: ANN401 - any JSON value is the domain
    """Encode a JSON value: keys sorted, no spaces, ASCII only, NaN and infinity refused.

    Floats are written by Python's shortest round-trip representation, so equal doubles give equal bytes.

    Raises:
        ValueError: For NaN or infinity.
        TypeError: For anything JSON does not have.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def read_canonical(data: bytes) -> Any:  # noqa: ANN401 - any JSON value may stand there
    """Read a JSON value that must be spelled as `canonical_bytes` spells it.

    Guarantees:
        Writing the value again gives `data`: repeated keys, spaces, other orders and other spellings are refused.

    Raises:
        ValueError: Naming the rule in the words "is not JSON" or "is not canonical", and nothing of the content.
    """
    try:
        value = json.loads(data.decode("ascii"))
        again = canonical_bytes(value)
    except (ValueError, RecursionError):  # not ASCII, not JSON, infinite, or nested without end
        raise ValueError("is not JSON") from None
    if again != data:
        raise ValueError("is not canonical")
    return value


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON value is the domain
    """SHA-256 of the canonical bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in bounded chunks, as 64 hexadecimal digits."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()
