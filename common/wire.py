"""Messages to bytes and back, with exactly one byte string for one message.

A frame, all numbers little-endian (docs/wire-format.md shows one byte by byte):

    magic `CLSR` | version | kind | header length | header | zeros to a multiple of 8 | vectors | SHA-256

The header is canonical JSON: the scalar fields, and name, type and length of each vector. The checksum guards against
accidents, not against an attacker, who can compute it too: on a network a frame travels in a signed envelope
(`common.envelope`). What secure aggregation needs signed is signed inside its messages.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, overload

import numpy as np

from common.canonical import canonical_bytes, read_canonical
from common.errors import IntegrityError
from common.messages import FIELD_RULES, Message, Refusal, RoundOrder, RoundReply, check_message
from common.secagg.messages import SECAGG_RULES
from common.study_messages import STUDY_RULES

MAGIC = b"CLSR"
VERSION = 1
_KINDS = (RoundOrder, RoundReply, Refusal, *SECAGG_RULES, *STUDY_RULES)
KINDS: Mapping[int, type[Message]] = dict(enumerate(_KINDS, start=1))
# The largest header, a RevealRequest with three full lists of the longest names, has about 101 KiB.
HEADER_LIMIT_BYTES = 128 * 1024
FRAME_LIMIT_BYTES = 1 << 30

_NUMBERS = {kind: number for number, kind in KINDS.items()}
_PREFIX = struct.Struct("<4sBBI")
_CHECKSUM_BYTES = 32
# Vectors start at a multiple of 8, so that they can be read in place.
_ALIGNMENT = 8

AnyVector = np.ndarray[Any, np.dtype[Any]]
First = TypeVar("First", bound=Message)
Second = TypeVar("Second", bound=Message)
Third = TypeVar("Third", bound=Message)


def frame_bound(values: int) -> int:
    """Bytes that no frame with `values` float32 values in all exceeds: what to decode with where shapes are known."""
    return _PREFIX.size + HEADER_LIMIT_BYTES + _ALIGNMENT + 4 * values + _CHECKSUM_BYTES


def encode(message: Message) -> bytes:
    """Write a message as one frame.

    Guarantees:
        Equal messages give equal bytes, and `decode` gives the same message back.

    Raises:
        IntegrityError: When a field breaks its rule; a message with NaN or infinity is never written.
    """
    check_message(message)
    header = canonical_bytes(_header(message))
    prefix = _PREFIX.pack(MAGIC, VERSION, _NUMBERS[type(message)], len(header))
    parts = [prefix, header, bytes(-(len(prefix) + len(header)) % _ALIGNMENT)]
    for name, dtype in _vector_types(type(message)):
        parts.append(getattr(message, name).astype(dtype, copy=False).tobytes())
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    return b"".join([*parts, checksum.digest()])


@overload
def decode(data: bytes, first: type[First], /, *, limit_bytes: int = ...) -> First: ...


@overload
def decode(data: bytes, first: type[First], second: type[Second], /, *, limit_bytes: int = ...) -> First | Second: ...


@overload
def decode(
    data: bytes, first: type[First], second: type[Second], third: type[Third], /, *, limit_bytes: int = ...
) -> First | Second | Third: ...


@overload
def decode(data: bytes, /, *kinds: type[First], limit_bytes: int = ...) -> First: ...


def decode(data: bytes, /, *kinds: type[First], limit_bytes: int = FRAME_LIMIT_BYTES) -> First:
    """Read a frame that came from outside.

    Guarantees:
        What is returned satisfies every rule of its fields, all vectors are finite, and encoding it again gives `data`.
        Nothing larger than `data` is allocated, whatever lengths the header claims.

    Edge cases:
        Vectors are read-only views into `data` and keep all of it alive; copy them to keep one of them longer.

    Args:
        data: The whole frame. `bytes`, not a bytearray: the views rely on it never changing.
        kinds: What makes sense here; a good frame of another kind is refused.
        limit_bytes: A longer frame is refused before it is looked at.

    Raises:
        IntegrityError: One sentence that names the broken rule and nothing of the content.
    """
    _check_frame(data, limit_bytes)
    kind = kind_of(data)
    if kind not in kinds:
        raise _unreadable(f"is a {kind.__name__}, which is not expected here")
    header_end = _header_end(data)
    scalars, lengths = _read_header(kind, data[_PREFIX.size : header_end])
    fields: dict[str, Any] = {**scalars, **_read_vectors(kind, data, header_end, lengths)}
    message = kind(**fields)
    check_message(message)
    return cast(First, message)


def subject(frame: bytes) -> tuple[str, int]:
    """Plan and round that a frame made by `encode` is about; round 0 where it names none. Vectors are not looked at."""
    scalars, _ = _read_header(kind_of(frame), frame[_PREFIX.size : _header_end(frame)])
    return scalars["plan_digest"], scalars.get("round_number", 0)


def _unreadable(rule: str) -> IntegrityError:
    return IntegrityError(f"the frame {rule}", hint="it was damaged on the way or is of another version; send it again")


def _check_frame(data: bytes, limit_bytes: int) -> None:
    """Size, magic, version and checksum: what holds for a frame of any kind."""
    if len(data) > limit_bytes:
        raise _unreadable(f"has {len(data)} bytes and may have {limit_bytes}")
    if len(data) < _PREFIX.size + _CHECKSUM_BYTES:
        raise _unreadable("is shorter than its fixed parts")
    if not data.startswith(MAGIC):
        raise _unreadable("does not start with the magic bytes")
    if data[len(MAGIC)] != VERSION:
        raise _unreadable(f"is not of version {VERSION}")
    body = memoryview(data)[:-_CHECKSUM_BYTES]
    if hashlib.sha256(body).digest() != data[-_CHECKSUM_BYTES:]:
        raise _unreadable("does not match its checksum")


def kind_of(data: bytes) -> type[Message]:
    """Which message a frame made by `encode` holds; nothing else of it is looked at.

    Raises:
        IntegrityError: When its first bytes name none.
    """
    _, _, number, _ = _PREFIX.unpack_from(data)
    kind = KINDS.get(number)
    if kind is None:
        raise _unreadable("is of an unknown kind")
    return kind


def _header_end(data: bytes) -> int:
    *_, length = _PREFIX.unpack_from(data)
    end: int = _PREFIX.size + length
    if length > HEADER_LIMIT_BYTES or end > len(data) - _CHECKSUM_BYTES:
        raise _unreadable("has a header length that is too large")
    return end


def _vector_types(kind: type[Message]) -> list[tuple[str, str]]:
    return [(name, rule.dtype) for name, rule in FIELD_RULES[kind].items() if rule.dtype]


def _header(message: Message) -> dict[str, Any]:
    kind = type(message)
    scalars = {name: getattr(message, name) for name, rule in FIELD_RULES[kind].items() if not rule.dtype}
    vectors = [[name, dtype, len(getattr(message, name))] for name, dtype in _vector_types(kind)]
    return {"fields": scalars, "vectors": vectors}


def _read_header(kind: type[Message], header: bytes) -> tuple[dict[str, Any], list[int]]:
    """The scalar fields, still to be checked by rule, and the length of each vector."""
    values = _parse_canonical(header)
    if not isinstance(values, dict) or values.keys() != {"fields", "vectors"}:
        raise _unreadable("has a header without exactly the keys `fields` and `vectors`")
    scalars = values["fields"]
    expected = {name for name, rule in FIELD_RULES[kind].items() if not rule.dtype}
    if not isinstance(scalars, dict) or scalars.keys() != expected:
        raise _unreadable(f"has an unknown or missing field for a {kind.__name__}")
    # JSON has lists and no tuples; a field that is neither is refused by its rule.
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in scalars.items()}
    return fields, _read_lengths(kind, values["vectors"])


def _parse_canonical(header: bytes) -> Any:  # noqa: ANN401 - any JSON value may stand there
    try:
        return read_canonical(header)
    except ValueError as error:
        raise _unreadable(f"has a header that {error}") from None


def _read_lengths(kind: type[Message], declared: object) -> list[int]:
    expected = _vector_types(kind)
    if not isinstance(declared, list) or len(declared) != len(expected):
        raise _unreadable(f"has an unknown or missing vector for a {kind.__name__}")
    return [_read_length(entry, name, dtype) for entry, (name, dtype) in zip(declared, expected, strict=True)]


def _read_length(entry: object, name: str, dtype: str) -> int:
    if not isinstance(entry, list) or len(entry) != 3 or entry[0] != name:
        raise _unreadable(f"does not declare the vector `{name}` where it belongs")
    if entry[1] != dtype:
        raise _unreadable(f"declares another type than {dtype} for the vector `{name}`")
    length = entry[2]
    if type(length) is not int or length < 0:
        raise _unreadable(f"declares a length of the vector `{name}` that is no count")
    return length


def _read_vectors(kind: type[Message], data: bytes, header_end: int, lengths: Sequence[int]) -> dict[str, AnyVector]:
    types = _vector_types(kind)
    start = header_end + -header_end % _ALIGNMENT
    sizes = [length * np.dtype(dtype).itemsize for length, (_, dtype) in zip(lengths, types, strict=True)]
    if start + sum(sizes) != len(data) - _CHECKSUM_BYTES:
        raise _unreadable("has more or fewer bytes than its header declares")
    if any(data[header_end:start]):
        raise _unreadable("has padding that is not zero")
    vectors = {}
    for (name, dtype), length, size in zip(types, lengths, sizes, strict=True):
        view = np.frombuffer(data, dtype=dtype, count=length, offset=start)
        # Copies only where the machine is big-endian.
        vectors[name] = view.astype(view.dtype.newbyteorder("="), copy=False)
        start += size
    return vectors
