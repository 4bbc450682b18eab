"""What both sides need of Flower: our bytes in its messages, and the settings that keep it quiet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from common.envelope import SHORT_ENVELOPE_BYTES
from common.errors import ProtocolError

ENVIRONMENT: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
"""What every process that imports Flower runs under: no telemetry, no look for updates, no model hub."""

# Flower reads its environment when it is imported.
os.environ.update(ENVIRONMENT)

from flwr.app import ConfigRecord, RecordDict  # noqa: E402
from flwr.app import Message as FlowerMessage  # noqa: E402
from flwr.app.message import remove_content_from_message  # noqa: E402
from flwr.common.serde import message_from_proto, message_to_proto  # noqa: E402
from flwr.proto.message_pb2 import Message as Head  # noqa: E402
from flwr.proto.message_pb2 import ObjectTree  # noqa: E402
from flwr.supercore.constant import HEAD_BODY_DIVIDER  # noqa: E402
from flwr.supercore.inflatable.inflatable_object import (  # noqa: E402
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata  # noqa: E402

MESSAGE_TYPE = "query.cloister"
"""The type of all our messages: no app of Flower's own is ever asked for one."""

MEDIA_TYPE = "application/protobuf"

_PARTS = 3
_RECORD, _FIELD = "cloister", "envelope"
# In Flower's ConfigRecord: the only item, its key, its value, and bytes as the value; each a tag of protobuf.
_ITEM, _VALUE, _BYTES = 0x0A, 0x12, 0x32
_KEY = b"\x0a\x08" + _FIELD.encode("ascii")
_VARINT_BYTES = 5


def version_headers(component: str) -> dict[str, str]:
    """What the SuperLink's version check wants to be told by a caller, which it knows by its component's name."""
    return dict(RuntimeVersionMetadata.from_local_component(component).as_metadata())


def pack(envelope: bytes) -> RecordDict:
    """Our bytes as the content of a Flower message."""
    return RecordDict({_RECORD: ConfigRecord({_FIELD: envelope})})


def unpack(record: bytes) -> bytes:
    """The bytes that `pack` put in, from Flower's serialised record.

    Guarantees:
        Reads a record of one field as Flower writes it, and builds nothing else from the bytes: a record of millions of
        small fields would take a hundred times its length in memory.

    Raises:
        ProtocolError: When it is anything else.
    """
    head, _, body = record.partition(HEAD_BODY_DIVIDER)
    if head != b"ConfigRecord  %d" % len(body):
        raise _unfit()
    item = _only_field(memoryview(body), _ITEM)
    if bytes(item[: len(_KEY)]) != _KEY:
        raise _unfit()
    return bytes(_only_field(_only_field(item[len(_KEY) :], _VALUE), _BYTES))


def short_envelope(head: Head) -> bytes | None:
    """The bytes that `parcel` left in the head of a short message; None where they come as a record.

    Raises:
        ProtocolError: When the head holds anything else.
    """
    if not head.content.items:
        return None
    record = head.content.items[0].config_record
    if len(head.content.items) != 1 or head.content.items[0].key != _RECORD or len(record.items) != 1:
        raise _unfit()
    if record.items[0].key != _FIELD or record.items[0].value.WhichOneof("value") != "bytes":
        raise _unfit()
    return bytes(record.items[0].value.bytes)


def answerable(head: Head) -> FlowerMessage:
    """A message to answer: of its head only the metadata count, which name whom the answer goes to."""
    message = Head(metadata=head.metadata)
    message.content.SetInParent()  # Flower wants some
    return message_from_proto(message)


def record_of(tree: ObjectTree) -> str:
    """The name of the one record in a message, by the tree of its parts: message, content, record.

    Raises:
        ProtocolError: When the tree has more parts, or fewer.
    """
    for _ in range(_PARTS - 1):
        if len(tree.children) != 1:
            raise _unfit()
        tree = tree.children[0]
    if tree.children:
        raise _unfit()
    return str(tree.object_id)


@dataclass(frozen=True, eq=False, repr=False)
class Parcel:
    """A message as it is handed to the SuperLink, by either side.

    A short one is whole in its head, which the SuperLink keeps and hands on: one call each way, where a record of its
    own takes an upload, a download and a confirmation more. Of a long one only the record is ever uploaded: the two
    parts around it name it and hold nothing. Nobody asks for them, and whoever has the record may let the SuperLink
    forget the message at once; a part that came after that would be refused.

    Attributes:
        head: What is announced; without content where there is a record.
        tree: Names of the parts.
        record_id: Name of the record; empty where there is none.
        record: Its bytes.
    """

    head: Head
    tree: ObjectTree
    record_id: str
    record: bytes


def parcel(message: FlowerMessage) -> Parcel:
    """A message whose content `pack` made, ready to be sent; it gets its name here, as Flower's own code does it."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        if len(cast(bytes, message.content[_RECORD][_FIELD])) <= SHORT_ENVELOPE_BYTES:
            return Parcel(message_to_proto(message), ObjectTree(object_id=message.object_id), "", b"")
        tree = get_object_tree(message)
        record_id = record_of(tree)
        record = get_all_nested_objects(message)[record_id].deflate()
        return Parcel(message_to_proto(remove_content_from_message(message)), tree, record_id, record)


def _only_field(data: memoryview, tag: int) -> memoryview:
    """What is in a protobuf message of one field that has a length; the message ends where the field does."""
    length, start = 0, 1
    for place, byte in enumerate(data[1 : 1 + _VARINT_BYTES]):
        length |= (byte & 0x7F) << 7 * place
        start += 1
        if byte < 0x80:
            break
    if data[:1] != bytes([tag]) or start + length != len(data):
        raise _unfit()
    return data[start:]


def _unfit() -> ProtocolError:
    return ProtocolError("a message must hold one sealed envelope and nothing else")
