"""What a node may hand in by `push-messages`: one answer to one message of the coordinator's, and nothing else.

The SuperLink takes whatever protobuf can say. It stores a time that is no number as one that is missing, and fails at
it from then on; it takes a tree of ten thousand parts, and is busy with it for half a minute; it hands on a message in
the coordinator's own name. One hospital's node could end every run by each of these, so that they end here.

Pure: the bytes of a body in, a verdict out. The fields are walked through as they lie there, few at a time, and nothing
is built from them; what is not listed here is refused, also a field that Flower would pass over.

Source: the Protocol Buffers encoding guide; the field numbers are those of Flower 1.41 (`fleet.proto`, `message.proto`,
`recorddict.proto`), and tests/server/gateway/test_answer_shape.py compares them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping

from common.errors import ProtocolError

_VARINT, _FIXED, _BYTES = 0, 1, 2
_VARINT_BYTES = 10
_FIXED_BYTES = 8
_TREE_DEPTH = 3
_WORD_BYTES = 64
_LATEST = 1e12
_LONGEST = 1e9
_NAME = re.compile(rb"[0-9a-f]{64}")

SUPERLINK_NODE = 1
"""Flower's number of the SuperLink itself, to which every answer goes."""

REQUEST: Mapping[int, int] = {1: _BYTES, 2: _BYTES, 3: _BYTES, 4: _BYTES}
"""node, messages_list, message_object_trees, clientapp_runtime_list."""
NODE: Mapping[int, int] = {1: _VARINT}
MESSAGE: Mapping[int, int] = {1: _BYTES, 2: _BYTES}
"""metadata, content; an error is none of ours."""
METADATA: Mapping[int, int] = {
    1: _VARINT,  # run_id
    2: _BYTES,  # message_id
    3: _VARINT,  # src_node_id
    4: _VARINT,  # dst_node_id
    5: _BYTES,  # reply_to_message_id
    6: _BYTES,  # group_id
    7: _FIXED,  # ttl
    8: _BYTES,  # message_type
    9: _FIXED,  # created_at
    10: _VARINT,  # src_task_id
    11: _VARINT,  # dst_task_id
}
TREE: Mapping[int, int] = {1: _BYTES, 2: _BYTES}
"""object_id, children: one at most."""
CONTENT = ({1: _BYTES}, {1: _BYTES, 4: _BYTES}, {1: _BYTES}, {1: _BYTES, 2: _BYTES}, {6: _BYTES})
"""RecordDict, its item with a ConfigRecord, that, its item, and bytes as the value: one in the other."""

Fields = Mapping[int, memoryview | int]


def is_answer(body: bytes) -> bool:
    """Whether a body is one answer of the node that it names, to the SuperLink, with at most one envelope in it."""
    try:
        request = _read(memoryview(body), REQUEST)
        node = _read(_part(request, 1), NODE)
        message = _read(_part(request, 2), MESSAGE)
        metadata = _read(_part(message, 1), METADATA)
        return (
            _is_from(metadata, node)
            and _is_in_time(metadata)
            and _is_tree(_part(request, 3), bytes(_part(metadata, 2)))
            and _is_content(_part(message, 2))
            and _is_seconds(_part(request, 4))
        )
    except ProtocolError:
        return False


def _is_from(metadata: Fields, node: Fields) -> bool:
    """From the node that signed the call, to the SuperLink, in answer to a message."""
    names = (bytes(_part(metadata, 2)), bytes(_part(metadata, 5)))
    words = (_part(metadata, 6), _part(metadata, 8))
    return (
        bool(metadata.get(3))
        and metadata.get(3) == node.get(1)
        and metadata.get(4) == SUPERLINK_NODE
        and all(_NAME.fullmatch(name) for name in names)
        and all(len(word) <= _WORD_BYTES for word in words)
    )


def _is_in_time(metadata: Fields) -> bool:
    """Both times are numbers that a clock may show; anything else breaks the SuperLink's arithmetic."""
    ttl, created = _number(metadata, 7), _number(metadata, 9)
    return 0 < ttl <= _LONGEST and 0 < created <= _LATEST


def _is_tree(data: memoryview, name: bytes) -> bool:
    """A message, perhaps its content, perhaps its record: one below the other, the first with the message's name."""
    for depth in range(_TREE_DEPTH):
        tree = _read(data, TREE)
        found = bytes(_part(tree, 1))
        if not _NAME.fullmatch(found) or (depth == 0 and found != name):
            return False
        if 2 not in tree:
            return True
        data = _part(tree, 2)
    return False


def _is_content(data: memoryview) -> bool:
    """Nothing, or one envelope."""
    if not data:
        return True
    for number, fields in enumerate(CONTENT):
        found = _read(data, fields)
        if set(found) != set(fields):
            return False
        if number % 2 and len(_part(found, 1)) > _WORD_BYTES:
            return False
        data = _part(found, max(fields))
    return True


def _is_seconds(data: memoryview) -> bool:
    """How long the answer took, for Flower's statistics: nothing, or one number."""
    return not data or (len(data) == _FIXED_BYTES and math.isfinite(struct.unpack("<d", data)[0]))


# --- protobuf --------------------------------------------------------------------------------------------------------


def _read(data: memoryview, known: Mapping[int, int]) -> Fields:
    """The fields of a message, each known and there once at most.

    Raises:
        ProtocolError: For anything else.
    """
    found: dict[int, memoryview | int] = {}
    for number, kind, value in _fields(data):
        if known.get(number) != kind or number in found:
            raise _unfit()
        found[number] = value
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, kind, value
            continue
        length, place = (_FIXED_BYTES, place) if kind == _FIXED else _varint(data, place)
        if kind not in (_FIXED, _BYTES) or place + length > len(data):
            raise _unfit()
        yield number, kind, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number, and the place after it."""
    number = 0
    for index, byte in enumerate(data[place : place + _VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80 and number < 1 << 64:  # beyond, readers differ in what they cut off
            return number, place + index + 1
    raise _unfit()


def _part(fields: Fields, number: int) -> memoryview:
    value = fields.get(number, memoryview(b""))
    if isinstance(value, int):
        raise _unfit()
    return value


def _number(fields: Fields, number: int) -> float:
    part = _part(fields, number)
    return float(struct.unpack("<d", part)[0]) if part else math.nan


def _unfit() -> ProtocolError:
    return ProtocolError("a node may hand in one answer and nothing else")
