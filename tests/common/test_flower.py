import os
import tracemalloc

import pytest
from flwr.app import ConfigRecord
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import ConfigRecord as ConfigProto

import common.flower
from common.errors import ProtocolError
from common.flower import pack, record_of, unpack

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


def tree(*children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=f"over {len(children)}", children=children)


def test_a_message_has_one_content_and_one_record():
    assert record_of(tree(tree(ObjectTree(object_id="record")))) == "record"
    for bad in (tree(), tree(tree()), tree(tree(tree(tree()))), tree(tree(), tree()), tree(tree(tree(), tree()))):
        with pytest.raises(ProtocolError):
            record_of(bad)


def test_the_environment_of_every_process_is_quiet():
    assert {name: os.environ[name] for name in common.flower.ENVIRONMENT} == common.flower.ENVIRONMENT
