import os
import tracemalloc

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.proto.message_pb2 import Message as Head
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import ConfigRecord as ConfigProto

import common.flower
from common.envelope import SHORT_ENVELOPE_BYTES
from common.errors import ProtocolError
from common.flower import pack, parcel, record_of, short_envelope, unpack
from tests.fleet_play import instruction

# --- our bytes in Flower's messages ----------------------------------------------------------------------------------

SIZES = (0, 1, 100, *range(115, 130), 16_360, 16_384, 1 << 21)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_packed_is_unpacked_as_flower_itself_reads_it(size):
    envelope = bytes(range(256)) * (size // 256) + bytes(size % 256)
    record = pack(envelope)["cloister"].deflate()
    assert unpack(record) == envelope == ConfigRecord.inflate(record)["envelope"]


def spoiled():
    good = pack(b"abc")["cloister"].deflate()
    yield from (good[:end] for end in range(len(good)))
    yield good + b"\x00"
    yield good.replace(b"envelope", b"envelops")
    for other in ({}, {"envelope": "abc"}, {"envelope": [1, 2]}, {"envelope": b"a", "more": b"b"}, {"envelope": 1.5}):
        yield ConfigRecord(other).deflate()
    for body in (b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x00", b"\x0a\x0c\x0a\x08envelope\x12\x00"):
        yield b"ConfigRecord  %d\x00%b" % (len(body), body)
    yield good.replace(b"ConfigRecord", b"ArrayRecord")


@pytest.mark.parametrize("record", list(spoiled()), ids=lambda record: record[-12:].hex() or "nothing")
def test_any_other_record_is_a_protocol_error(record):
    with pytest.raises(ProtocolError, match="one sealed envelope"):
        unpack(record)


def test_a_record_of_many_small_fields_is_not_built():
    body = ConfigProto(items=[{"key": "a", "value": {"sint64": 1}}]).SerializeToString() * 300_000
    record = b"ConfigRecord  %d\x00%b" % (len(body), body)
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        unpack(record)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(record)


@pytest.mark.parametrize("size", [0, 1, SHORT_ENVELOPE_BYTES])
def test_a_short_message_is_whole_in_its_head(size):
    sending = parcel(message := instruction(bytes(size)))
    assert short_envelope(sending.head) == bytes(size)
    assert (sending.record_id, sending.record, len(sending.tree.children)) == ("", b"", 0)
    assert sending.tree.object_id == message.object_id == sending.head.metadata.message_id


def test_a_long_message_has_a_record_and_nothing_in_its_head():
    envelope = bytes(SHORT_ENVELOPE_BYTES + 1)
    sending = parcel(instruction(envelope))
    assert short_envelope(sending.head) is None
    assert record_of(sending.tree) == sending.record_id != ""
    assert unpack(sending.record) == envelope


def other_heads():
    for content in ({}, {"envelope": "abc"}, {"envelope": [1]}, {"envelope": b"a", "more": b"b"}, {"more": b"a"}):
        yield RecordDict({"cloister": ConfigRecord(content)})
    yield RecordDict({"other": ConfigRecord({"envelope": b"a"})})
    yield RecordDict({"cloister": ConfigRecord({"envelope": b"a"}), "more": ConfigRecord()})
    yield RecordDict({"cloister": MetricRecord({"envelope": 1})})


@pytest.mark.parametrize("content", list(other_heads()), ids=str)
def test_a_head_with_anything_else_is_a_protocol_error(content):
    with pytest.raises(ProtocolError, match="one sealed envelope"):
        short_envelope(Head(content=recorddict_to_proto(content)))


def test_a_head_without_content_holds_no_envelope():
    assert short_envelope(Head()) is None


def tree(*children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=f"over {len(children)}", children=children)


def test_a_message_has_one_content_and_one_record():
    assert record_of(tree(tree(ObjectTree(object_id="record")))) == "record"
    for bad in (tree(), tree(tree()), tree(tree(tree(tree()))), tree(tree(), tree()), tree(tree(tree(), tree()))):
        with pytest.raises(ProtocolError):
            record_of(bad)


def test_the_environment_of_every_process_is_quiet():
    assert {name: os.environ[name] for name in common.flower.ENVIRONMENT} == common.flower.ENVIRONMENT
