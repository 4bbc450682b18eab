"""Lines that hang together: each holds the hash of the one before, its own hash, and a signature.

    {"fields": {...}, "hash": H, "kind": K, "number": N, "previous": hash of line N-1, "signature": S, "time": T}

One line is canonical JSON and a newline. H is the SHA-256 of number, time, previous, kind and fields; S signs H. An
edited, exchanged, left-out or inserted line breaks the row of hashes; whoever mends the hashes has no signature for
them. That lines are missing at the *end* is for an anchor to say (`common.chain_anchor`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.canonical import canonical_bytes, digest
from common.errors import IntegrityError
from common.identity import is_signed_by, sign

LINE_LIMIT_BYTES = 16 * 1024
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z")
_HASH = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Head:
    """How far a chain goes: the number of its last line and that line's hash; 0 and zeros before the first."""

    number: int = 0
    hash: str = "0" * 64


@dataclass(frozen=True)
class ChainLine:
    """One line. `hash` was compared with the rest when the line was read; `signature` was not."""

    number: int
    time: str
    previous: str
    kind: str
    fields: Mapping[str, Any]
    hash: str
    signature: str

    @property
    def head(self) -> Head:
        """Where the chain stands after this line."""
        return Head(self.number, self.hash)

    @property
    def before(self) -> Head:
        """Where the chain stood before it."""
        return Head(self.number - 1, self.previous)


def written_time(moment: datetime) -> str:
    """A moment as a chain writes it, `2026-11-21T15:04:05.678Z`; must be in UTC."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seal_line(
    identity: Ed25519PrivateKey, purpose: str, before: Head, *, time: str, kind: str, fields: Mapping[str, Any]
) -> bytes:
    """The bytes of the next line, with its newline.

    Args:
        identity: Signs the line.
        purpose: What the chain is for; a line of one purpose is none of another.
        before: Where the chain stands.
        time: As `written_time` gives it.
        kind: What happened, in small letters and hyphens.
        fields: A JSON object.

    Raises:
        TypeError: For fields that JSON does not have.
        ValueError: For NaN or infinity.
    """
    body = {"number": before.number + 1, "time": time, "previous": before.hash, "kind": kind, "fields": dict(fields)}
    line_hash = digest(body)
    signature = sign(identity, purpose, line_hash).hex()
    return canonical_bytes({**body, "hash": line_hash, "signature": signature}) + b"\n"


def read_line(data: bytes) -> ChainLine:
    """Read one line with its newline.

    Guarantees:
        The line is spelled in the one canonical way, has exactly its seven parts, and its hash is that of the others.

    Raises:
        IntegrityError: One sentence that names the broken rule and nothing of the content.
    """
    line = _parts(data)
    rules = (
        (type(line.number) is int and line.number >= 1, "has no number"),
        (_is(TIME, line.time), "has no time"),
        (_is(_HASH, line.previous) and _is(_HASH, line.hash), "has no hash"),
        (_is(_SIGNATURE, line.signature), "has no signature"),
        (_is(_KIND, line.kind), "has no kind"),
        (isinstance(line.fields, dict), "has no fields"),
    )
    for holds, fault in rules:
        if not holds:
            raise IntegrityError(f"a line of the log {fault}")
    if digest(_hashed(line)) != line.hash:
        raise IntegrityError("a line of the log does not match its hash: it was changed")
    return line


def _hashed(line: ChainLine) -> dict[str, Any]:
    return {name: getattr(line, name) for name in ("number", "time", "previous", "kind", "fields")}


def _parts(data: bytes) -> ChainLine:
    if len(data) > LINE_LIMIT_BYTES:
        raise IntegrityError(f"a line of the log has more than {LINE_LIMIT_BYTES} bytes")
    try:
        values = json.loads(data.decode("ascii"))
        canonical = canonical_bytes(values) + b"\n"
    except (ValueError, RecursionError):  # not ASCII, not JSON, infinite, or nested without end
        raise IntegrityError("a line of the log is not JSON") from None
    # Comparing with our own writing refuses repeated keys, spaces, other orders and other spellings of a number.
    if canonical != data:
        raise IntegrityError("a line of the log is not written in the one way in which lines are written")
    if not isinstance(values, dict) or values.keys() != ChainLine.__dataclass_fields__.keys():
        raise IntegrityError("a line of the log has an unknown or missing part")
    return ChainLine(**values)


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def is_line_signed_by(public: str, purpose: str, line: ChainLine) -> bool:
    """Whether the holder of a public key wrote this line for this purpose."""
    return is_signed_by(public, purpose, line.hash, bytes.fromhex(line.signature))


def walk(stream: BinaryIO, before: Head) -> Iterator[tuple[ChainLine, bytes]]:
    """The complete lines from where a stream stands, in order, each with its bytes.

    Guarantees:
        Every line follows the one before it: the next number, and its hash. Memory is that of one line.

    Edge cases:
        Bytes after the last newline are no line; the walk ends before them. They are a torn write, or somebody's.

    Args:
        stream: Stands at the start of the line after `before`.
        before: Where the chain stands.

    Raises:
        IntegrityError: At the first line that is malformed or does not follow; it names the line by its number.
    """
    while data := stream.readline(LINE_LIMIT_BYTES + 1):
        if not data.endswith(b"\n") and len(data) <= LINE_LIMIT_BYTES:
            return
        line = _following(data, before)
        yield line, data
        before = line.head


def _following(data: bytes, before: Head) -> ChainLine:
    place = f"line {before.number + 1}"
    try:
        line = read_line(data)
    except IntegrityError as error:
        raise IntegrityError(f"{place}: {error.message}", hint=TAMPERED) from None
    if line.before != before:
        raise IntegrityError(f"{place} does not follow the line before it: lines were left out or moved", hint=TAMPERED)
    return line


TAMPERED = "keep this file and its anchor for an inquiry; `recover` puts both aside and begins a new log that says so"
