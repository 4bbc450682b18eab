"""Arrays and a document in one file that is replaced in one step, and that shows when it was damaged.

A safetensors file whose metadata hold the document as canonical JSON, with a SHA-256 over document and arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.canonical import canonical_bytes
from common.files import write_durably

_METADATA_KEY = "cloister"
_LENGTH_BYTES = 8

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


def write_arrays(path: Path, arrays: Arrays, document: Mapping[str, Any]) -> None:
    """Replace the file in one durable step."""
    # safetensors writes the memory as it lies, so a view with strides would be written in the wrong order.
    whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    sealed = canonical_bytes({"document": document, "sha256": _seal(document, whole)})
    write_durably(path, save(whole, {_METADATA_KEY: sealed.decode("ascii")}))


def read_arrays(content: bytes) -> tuple[Arrays, dict[str, Any]] | None:
    """Arrays and document of a file's bytes, bit for bit as they were written; None when they are damaged."""
    try:
        arrays = load(content)
        header_end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES:header_end])
        sealed = json.loads(header["__metadata__"][_METADATA_KEY])
        document, seal = sealed["document"], sealed["sha256"]
        whole = seal == _seal(document, arrays)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return (arrays, document) if whole else None


def _seal(document: Mapping[str, Any], arrays: Arrays) -> str:
    """SHA-256 over everything that is read back: the document, and name, type, shape and bytes of each array."""
    hasher = hashlib.sha256(canonical_bytes(document))
    for name, values in sorted(arrays.items()):
        hasher.update(canonical_bytes([name, values.dtype.str, list(values.shape)]))
        hasher.update(values.tobytes())
    return hasher.hexdigest()
