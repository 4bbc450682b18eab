"""What the gateway lets a node hand in, held against what Flower's own code reads and writes."""

import math

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import recorddict_to_proto
from flwr.proto import fleet_pb2, message_pb2, node_pb2, recorddict_pb2
from flwr.proto.error_pb2 import Error

import common.flower
from common.envelope import SHORT_ENVELOPE_BYTES
from server.gateway import answer_shape
from server.gateway.answer_shape import is_answer
from tests import fleet_play
from tests.fleet_play import Coordinator

FLOWERS = {
    "REQUEST": fleet_pb2.PushMessagesRequest,
    "NODE": node_pb2.Node,
    "MESSAGE": message_pb2.Message,
    "METADATA": message_pb2.Metadata,
    "TREE": message_pb2.ObjectTree,
}
CONTENT = (
    (recorddict_pb2.RecordDict, ("items",)),
    (recorddict_pb2.RecordDict.Item, ("key", "config_record")),
    (recorddict_pb2.ConfigRecord, ("items",)),
    (recorddict_pb2.ConfigRecord.Item, ("key", "value")),
    (recorddict_pb2.ConfigRecordValue, ("bytes",)),
)
WIRE = {4: 0, 1: 1, 9: 2, 11: 2, 12: 2}
"""Protobuf's kinds of field on the wire: uint64, double, string, message, bytes. A repeated double is packed."""


@pytest.mark.parametrize("name", FLOWERS)
def test_fields_are_numbered_as_flower_numbers_them(name):
    fields = FLOWERS[name].DESCRIPTOR.fields
    theirs = {one.number: 2 if one.is_repeated else WIRE[one.type] for one in fields}
    ours = getattr(answer_shape, name)
    left_out = {"MESSAGE": {3}}.get(name, set())  # an error
    assert ours == {number: kind for number, kind in theirs.items() if number not in left_out}


def test_content_is_numbered_as_flower_numbers_it():
    for ours, (kind, names) in zip(answer_shape.CONTENT, CONTENT, strict=True):
        assert ours == {kind.DESCRIPTOR.fields_by_name[name].number: 2 for name in names}
    assert answer_shape.SUPERLINK_NODE == SUPERLINK_NODE_ID


@pytest.fixture(params=[b"", b"answer", bytes(SHORT_ENVELOPE_BYTES), bytes(SHORT_ENVELOPE_BYTES + 1)], ids=len)
def announced(request, tmp_path):
    """What a real link announces: short answers whole, a long one without its record."""
    coordinator = Coordinator()
    with fleet_play.linked(tmp_path, coordinator) as (link, _):
        link.connect()
        link.reply(link.receive(), request.param)
    return coordinator.announced


def test_what_a_node_announces_passes(announced):
    assert is_answer(announced.SerializeToString())


@pytest.fixture
def answer(tmp_path):
    """A short answer, to be spoilt."""
    coordinator = Coordinator()
    with fleet_play.linked(tmp_path, coordinator) as (link, _):
        link.connect()
        link.reply(link.receive(), b"answer")
    assert is_answer(coordinator.announced.SerializeToString())
    return coordinator.announced


def metadata(**values):
    def spoil(request):
        for name, value in values.items():
            setattr(request.messages_list[0].metadata, name, value)

    return spoil


def content(made):
    def spoil(request):
        request.messages_list[0].content.CopyFrom(recorddict_to_proto(made))

    return spoil


def tree(depth, wide=1):
    def grow(left):
        children = [grow(left - 1) for _ in range(wide)] if left else []
        return message_pb2.ObjectTree(object_id="a" * 64, children=children)

    def spoil(request):
        del request.message_object_trees[:]
        request.message_object_trees.append(grow(depth))
        request.message_object_trees[0].object_id = request.messages_list[0].metadata.message_id

    return spoil


def call(name, *values):
    return lambda request: getattr(request, name).extend(values)


SPOILT = {
    "a ttl that is no number": metadata(ttl=math.nan),
    "an endless ttl": metadata(ttl=math.inf),
    "no ttl": metadata(ttl=0.0),
    "a ttl before its time": metadata(ttl=-1.0),
    "made at no time": metadata(created_at=math.nan),
    "made at the end of time": metadata(created_at=math.inf),
    "from the SuperLink": metadata(src_node_id=SUPERLINK_NODE_ID),
    "from another node": metadata(src_node_id=8),
    "from nobody": metadata(src_node_id=0),
    "to another node": metadata(dst_node_id=8),
    "an instruction": metadata(reply_to_message_id=""),
    "an answer to a word": metadata(reply_to_message_id="g" * 64),
    "a name that is none": metadata(message_id="x"),
    "a long group": metadata(group_id="g" * 65),
    "a long type": metadata(message_type="t" * 65),
    "a wide tree": tree(1, 2),
    "a deep tree": tree(3),
    "a tree of another": lambda request: setattr(request.message_object_trees[0], "object_id", "b" * 64),
    "no tree": lambda request: request.ClearField("message_object_trees"),
    "two trees": lambda request: request.message_object_trees.append(request.message_object_trees[0]),
    "no message": lambda request: request.ClearField("messages_list"),
    "two messages": lambda request: request.messages_list.append(request.messages_list[0]),
    "no node": lambda request: request.ClearField("node"),
    "an error": lambda request: request.messages_list[0].error.CopyFrom(Error(code=1, reason="x" * 100)),
    "two records": content(RecordDict({name: ConfigRecord({"e": b"a"}) for name in "ab"})),
    "two fields": content(RecordDict({"a": ConfigRecord({"e": b"a", "f": b"b"})})),
    "text": content(RecordDict({"a": ConfigRecord({"e": "text"})})),
    "numbers": content(RecordDict({"a": ConfigRecord({"e": [1, 2, 3]})})),
    "an empty record": content(RecordDict({"a": ConfigRecord()})),
    "metrics": content(RecordDict({"a": MetricRecord({"e": 1.0})})),
    "arrays": content(RecordDict({"a": ArrayRecord()})),
    "a long key": content(RecordDict({"a" * 65: ConfigRecord({"e": b"a"})})),
    "two durations": call("clientapp_runtime_list", 1.0),
}


@pytest.mark.parametrize("name", SPOILT)
def test_nothing_else_does(answer, name):
    SPOILT[name](answer)
    assert not is_answer(answer.SerializeToString())


def test_a_duration_is_a_number(answer):
    for seconds, verdict in ((0.0, True), (1.5, True), (math.nan, False), (math.inf, False)):
        answer.clientapp_runtime_list[:] = [seconds]
        assert is_answer(answer.SerializeToString()) == verdict


def test_fields_that_flower_passes_over_do_not(answer):
    body = answer.SerializeToString()
    for more in (b"\x28\x00", b"\x7a\x00", b"\x0b\x0c", b"\x0d\x00\x00\x00\x00", b"\x00", b"\x80" * 11, b"\x0a\x7f"):
        assert not is_answer(body + more)


def test_numbers_beyond_64_bits_do_not(answer):
    body = answer.SerializeToString()
    node = b"\x0a\x02\x08\x07"
    assert body.startswith(node)
    for varint, verdict in ((b"\x87\x80\x00", True), (b"\x87" + b"\x80" * 8 + b"\x02", False)):
        assert is_answer(b"\x0a" + bytes([1 + len(varint)]) + b"\x08" + varint + body[len(node) :]) == verdict


def test_no_bytes_raise(answer):
    body = answer.SerializeToString()
    assert [end for end in range(len(body)) if is_answer(body[:end])] == [len(body) - 10], "without the duration"
    for place in range(len(body)):
        for bit in (0x01, 0x80):
            spoilt = bytearray(body)
            spoilt[place] ^= bit
            assert is_answer(bytes(spoilt)) in (True, False)


def test_millions_of_fields_are_refused_at_the_second(answer):
    body = answer.SerializeToString() + b"\x12\x00" * 1_000_000
    assert not is_answer(body)
    assert len(common.flower.MESSAGE_TYPE) <= 64
