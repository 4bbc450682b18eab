"""A node's link to a coordinator that answers whatever it likes."""

from contextlib import ExitStack

import pytest
from flwr.app import ConfigRecord
from flwr.app.message import remove_content_from_message
from flwr.common.serde import config_record_to_proto, message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.proto.error_pb2 import Error
from flwr.supercore.inflatable.inflatable_object import get_object_tree

import client.app
import common.flower
from client.app import Delivery
from common.channel import CallError
from common.errors import AccessError, TransportError
from common.flower import MESSAGE_TYPE
from tests import fleet_play
from tests.evil_server import whole
from tests.fleet_play import Coordinator, instruction


@pytest.fixture
def linked(tmp_path):
    """A link to a coordinator, and the server behind it."""
    with ExitStack() as stack:
        yield lambda coordinator, **options: stack.enter_context(fleet_play.linked(tmp_path, coordinator, **options))


@pytest.fixture
def long(monkeypatch):
    """A few bytes are a long envelope."""
    monkeypatch.setattr(common.flower, "SHORT_ENVELOPE_BYTES", 3)


# --- a coordinator that lies -----------------------------------------------------------------------------------------


def pulled(head=None, trees=None, count=1):
    message = instruction()
    head = head or message_to_proto(remove_content_from_message(message))
    trees = [get_object_tree(message)] * count if trees is None else trees
    return fleet_pb2.PullMessagesResponse(messages_list=[head], message_object_trees=trees)


def odd_head(**values):
    values = {"message_type": MESSAGE_TYPE, **values}
    head = message_pb2.Message(metadata=message_pb2.Metadata(**values), error=Error(code=1, reason="x"))
    head.content.SetInParent()
    return head


LEAF = message_pb2.ObjectTree(object_id="x")
TREES = {
    "no tree": [],
    "a leaf": [LEAF],
    "two records": [message_pb2.ObjectTree(children=[message_pb2.ObjectTree(children=[LEAF, LEAF])])],
    "two contents": [message_pb2.ObjectTree(children=[message_pb2.ObjectTree(children=[LEAF])] * 2)],
    "many": [message_pb2.ObjectTree(children=[LEAF] * 1000)],
}


@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
def test_a_message_that_is_not_of_three_parts_is_none_of_ours(linked, trees):
    link, server = linked(Coordinator(pull_messages=pulled(trees=trees)))
    assert link.receive() is None
    assert server.paths == ["/v1/fleet/pull-messages"]


def test_a_head_that_holds_anything_but_one_envelope_is_none_of_ours(linked):
    for content in ({}, {"envelope": "text"}, {"envelope": b"a", "more": b"b"}, {"other": b"a"}):
        head = odd_head()
        head.content.items.add(key="cloister").config_record.CopyFrom(config_record_to_proto(ConfigRecord(content)))
        link, _ = linked(Coordinator(pull_messages=pulled(head)))
        assert link.receive() is None
    for second in ("cloister", "other"):
        head = message_to_proto(instruction())
        head.content.items.add(key=second)
        link, server = linked(Coordinator(pull_messages=pulled(head)))
        assert link.receive() is None
        assert server.paths == ["/v1/fleet/pull-messages"]


@pytest.mark.parametrize("record", [b"", b"\xff", b"ConfigRecord  0\x00", bytes(100)], ids=len)
def test_a_record_that_holds_no_envelope_is_none_of_ours(linked, record):
    part = message_pb2.PullObjectResponse(object_found=True, object_available=True, object_content=record)
    link, _ = linked(Coordinator(pull_object=part))
    assert link.receive() is None


@pytest.mark.parametrize(
    "values",
    [{}, {"ttl": float("nan")}, {"created_at": -1e300, "ttl": 1e300}, {"message_id": "x" * 9000, "run_id": 2**64 - 1}],
    ids=["empty", "nan", "huge", "long"],
)
def test_an_odd_head_is_answered_or_refused_and_never_breaks_the_node(linked, values):
    coordinator = Coordinator(pull_messages=pulled(odd_head(**values)))
    link, _ = linked(coordinator)
    delivery = link.receive()
    assert isinstance(delivery, Delivery)
    assert not delivery.message.content
    link.reply(delivery, b"answer")


@pytest.mark.parametrize("kind", ["", "train", "query.other", "no type"])
def test_a_message_of_another_type_is_none_of_ours(linked, kind):
    link, server = linked(Coordinator(pull_messages=pulled(odd_head(message_type=kind))))
    assert link.receive() is None
    assert server.paths == ["/v1/fleet/pull-messages"]


def test_a_tree_of_millions_is_not_read(linked):
    link, server = linked(Coordinator(pull_messages=pulled().SerializeToString() + b"\x12\x00" * 1_100_000))
    with pytest.raises(CallError, match="more than 2162688 bytes"):
        link.receive()
    assert server.paths == ["/v1/fleet/pull-messages"]


@pytest.mark.parametrize(("found", "available"), [(False, False), (True, False)])
def test_a_part_that_does_not_come_is_an_error_in_bounded_time(linked, monkeypatch, found, available):
    monkeypatch.setattr(client.app, "_OBJECT_SECONDS", 0.1)
    part = message_pb2.PullObjectResponse(object_found=found, object_available=available)
    link, server = linked(Coordinator(pull_object=part))
    with pytest.raises(TransportError, match="did not come"):
        link.receive()
    assert "/v1/fleet/confirm-message-received" not in server.paths


def test_an_answer_that_is_not_taken_is_an_error(linked, long):
    link, _ = linked(Coordinator(push_object=message_pb2.PushObjectResponse(stored=False)))
    with pytest.raises(TransportError, match="did not take"):
        link.reply(link.receive(), b"answer")


def test_a_forgotten_node_is_told(linked):
    link, _ = linked(Coordinator(send_node_heartbeat=heartbeat_pb2.SendNodeHeartbeatResponse()))
    with pytest.raises(TransportError, match="does not know this node"):
        link.heartbeat()


@pytest.mark.parametrize("name", ["activate-node", "pull-messages", "pull-object", "push-messages", "push-object"])
def test_what_is_no_protobuf_is_an_error_in_each_call(linked, long, name):
    link, _ = linked(Coordinator(**{name.replace("-", "_"): b"\xff\xff\xff"}))
    with pytest.raises(CallError, match="no Flower message"):
        _live(link)


def _live(link):
    link.connect()
    link.reply(link.receive(), b"answer")


@pytest.mark.parametrize("name", ["activate-node", "pull-messages", "pull-object", "push-messages"])
def test_no_call_follows_a_redirect(linked, name):
    def answer(asked):
        if asked.path.endswith(name):
            return whole(b"", b"HTTP/1.1 307 Go\r\nlocation: /v1/fleet/get-fab\r\n")
        return coordinator(asked)

    coordinator = Coordinator()
    link, server = linked(answer)
    with pytest.raises(CallError):
        _live(link)
    assert "/v1/fleet/get-fab" not in server.paths


@pytest.mark.parametrize(("status", "body"), [(401, b""), (404, b""), (400, b'{"code": 2004}')])
def test_a_node_that_is_not_let_in_hears_whom_to_ask(linked, status, body):
    link, _ = linked(lambda _: whole(body, b"HTTP/1.1 %d No\r\n" % status))
    with pytest.raises(AccessError, match=f"does not let this node in .HTTP {status}") as refused:
        link.connect()
    assert "enrolled" in refused.value.hint


def test_a_busy_superlink_is_no_refusal(linked):
    link, _ = linked(lambda _: whole(b"", b"HTTP/1.1 503 Busy\r\n"))
    with pytest.raises(CallError):
        link.connect()
