"""What the node's link, the coordinator's grid and its control need of Flower, by name; and a link against liars."""

import inspect
import re
from base64 import b64decode
from contextlib import ExitStack
from pathlib import Path
from typing import get_type_hints

import pytest
from flwr.app import ConfigRecord
from flwr.app.message import remove_content_from_message
from flwr.common import constant
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import control_pb2, fleet_pb2, heartbeat_pb2, message_pb2, node_pb2, recorddict_pb2, runtime_pb2
from flwr.proto.error_pb2 import Error
from flwr.supercore import constant as core
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.protobuf.translation import PROTOBUF_MEDIA_TYPE, PROTOBUF_REQUEST_TYPES
from flwr.supercore.runtime.runtime_http_client import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app
from flwr.superlink.routers.control.router import router as control
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.routers.fleet.router import router as fleet

import client.app
import common.flower
import server.app
import server.control
import server.mailbox
from client.node_number import NodeNumber
from common.channel import CallError
from common.errors import AccessError, ProtocolError
from common.flower import record_of, short_envelope, unpack
from server.gateway.rules import FLEET_PATHS
from tests import fleet_play
from tests.evil_server import whole
from tests.fleet_play import ENVELOPE, Coordinator, instruction, short

# --- the contract with Flower ----------------------------------------------------------------------------------------

CALLS = {
    "/v1/fleet/activate-node": (fleet_pb2.ActivateNodeRequest, fleet_pb2.ActivateNodeResponse),
    "/v1/fleet/deactivate-node": (fleet_pb2.DeactivateNodeRequest, fleet_pb2.DeactivateNodeResponse),
    "/v1/fleet/send-node-heartbeat": (
        heartbeat_pb2.SendNodeHeartbeatRequest,
        heartbeat_pb2.SendNodeHeartbeatResponse,
    ),
    "/v1/fleet/pull-messages": (fleet_pb2.PullMessagesRequest, fleet_pb2.PullMessagesResponse),
    "/v1/fleet/push-messages": (fleet_pb2.PushMessagesRequest, fleet_pb2.PushMessagesResponse),
    "/v1/fleet/pull-object": (message_pb2.PullObjectRequest, message_pb2.PullObjectResponse),
    "/v1/fleet/push-object": (message_pb2.PushObjectRequest, message_pb2.PushObjectResponse),
    "/v1/fleet/confirm-message-received": (
        message_pb2.ConfirmMessageReceivedRequest,
        message_pb2.ConfirmMessageReceivedResponse,
    ),
    "/v1/control/list-nodes": (control_pb2.ListNodesRequest, control_pb2.ListNodesResponse),
    "/v1/control/register-node": (control_pb2.RegisterNodeRequest, control_pb2.RegisterNodeResponse),
    "/v1/control/unregister-node": (control_pb2.UnregisterNodeRequest, control_pb2.UnregisterNodeResponse),
    "/v1/control/start-run": (control_pb2.StartRunRequest, control_pb2.StartRunResponse),
    "/v1/control/list-runs": (control_pb2.ListRunsRequest, control_pb2.ListRunsResponse),
    "/v1/control/stop-run": (control_pb2.StopRunRequest, control_pb2.StopRunResponse),
}

FIELDS = {
    fleet_pb2.ActivateNodeRequest: "public_key heartbeat_interval",
    fleet_pb2.ActivateNodeResponse: "node_id",
    fleet_pb2.DeactivateNodeRequest: "node_id",
    heartbeat_pb2.SendNodeHeartbeatRequest: "node heartbeat_interval",
    heartbeat_pb2.SendNodeHeartbeatResponse: "success",
    fleet_pb2.PullMessagesRequest: "node",
    fleet_pb2.PullMessagesResponse: "messages_list message_object_trees",
    fleet_pb2.PushMessagesRequest: "node messages_list message_object_trees clientapp_runtime_list",
    fleet_pb2.PushMessagesResponse: "objects_to_push session_id",
    message_pb2.PullObjectRequest: "node run_id object_id",
    message_pb2.PullObjectResponse: "object_found object_available object_content",
    message_pb2.PushObjectRequest: "node run_id object_id object_content session_id",
    message_pb2.PushObjectResponse: "stored",
    message_pb2.ConfirmMessageReceivedRequest: "node run_id message_object_id",
    message_pb2.ObjectTree: "object_id children",
    message_pb2.Message: "metadata content error",
    recorddict_pb2.RecordDict: "items",
    recorddict_pb2.RecordDict.Item: "key config_record",
    recorddict_pb2.ConfigRecord: "items",
    recorddict_pb2.ConfigRecord.Item: "key value",
    recorddict_pb2.ConfigRecordValue: "bytes",
    message_pb2.Metadata: "run_id message_id src_node_id dst_node_id reply_to_message_id ttl created_at",
    runtime_pb2.PullAppMessagesRequest: "message_ids",
    runtime_pb2.PushAppMessagesRequest: "messages_list message_object_trees",
    runtime_pb2.PushAppMessagesResponse: "message_ids objects_to_push session_id",
    runtime_pb2.PullAppMessagesResponse: "messages_list message_object_trees",
    control_pb2.ListNodesResponse: "nodes_info",
    node_pb2.NodeInfo: "node_id public_key status last_activated_at",
    control_pb2.RegisterNodeRequest: "public_key",
    control_pb2.RegisterNodeResponse: "node_id",
    control_pb2.UnregisterNodeRequest: "node_id",
    control_pb2.StartRunRequest: "fab override_config",
    control_pb2.StartRunResponse: "run_id",
    control_pb2.ListRunsRequest: "run_id",
    control_pb2.ListRunsResponse: "run_dict",
    control_pb2.StopRunRequest: "run_id",
    control_pb2.StopRunResponse: "success",
    Error: "reason",
}

IMPORTS = {
    common.flower: {
        "flwr.app": "ConfigRecord RecordDict Message as FlowerMessage",
        "flwr.app.message": "remove_content_from_message",
        "flwr.common.serde": "message_from_proto message_to_proto",
        "flwr.proto.message_pb2": "Message as Head ObjectTree",
        "flwr.supercore.constant": "HEAD_BODY_DIVIDER",
        "flwr.supercore.inflatable.inflatable_object": "get_all_nested_objects get_object_tree no_object_id_recompute",
        "flwr.supercore.runtime_version_compatibility": "RuntimeVersionMetadata",
    },
    client.app: {
        "flwr.app": "Message",
        "flwr.common.constant": "HEARTBEAT_DEFAULT_INTERVAL TIMESTAMP_HEADER",
        "flwr.proto.fleet_pb2": "ActivateNodeRequest ActivateNodeResponse DeactivateNodeRequest DeactivateNodeResponse "
        "PullMessagesRequest PullMessagesResponse PushMessagesRequest PushMessagesResponse",
        "flwr.proto.heartbeat_pb2": "SendNodeHeartbeatRequest SendNodeHeartbeatResponse",
        "flwr.proto.message_pb2": "ConfirmMessageReceivedRequest ConfirmMessageReceivedResponse ObjectTree "
        "PullObjectRequest PullObjectResponse PushObjectRequest PushObjectResponse",
        "flwr.proto.node_pb2": "Node",
        "flwr.supercore.constant": "FLEET_HTTP_PUBLIC_KEY_HEADER FLEET_HTTP_SIGNATURE_HEADER",
        "flwr.supercore.date": "now",
        "flwr.supercore.primitives.asymmetric": "public_key_to_bytes sign_message",
    },
    server.app: {
        "flwr.app": "Context Message",
        "flwr.clientapp": "ClientApp",
        "flwr.proto.message_pb2": "PushObjectRequest",
        "flwr.proto.runtime_pb2": "PushAppMessagesRequest",
        "flwr.serverapp": "Grid ServerApp",
        "flwr.superlink.grid": "HttpGrid",
    },
    server.mailbox: {
        "flwr.common.constant": "SUPERLINK_NODE_ID as SUPERLINK_NODE",
        "flwr.proto.message_pb2": "Message as Head ConfirmMessageReceivedRequest ObjectTree PullObjectRequest "
        "PullObjectResponse",
        "flwr.proto.runtime_pb2": "PullAppMessagesRequest",
        "flwr.superlink.grid": "HttpGrid",
    },
    server.control: {
        "flwr.cli.build": "build_fab_from_files",
        "flwr.common.serde": "user_config_to_proto",
        "flwr.proto.control_pb2": "ListNodesRequest ListNodesResponse ListRunsRequest ListRunsResponse "
        "RegisterNodeRequest RegisterNodeResponse StartRunRequest StartRunResponse StopRunRequest StopRunResponse "
        "UnregisterNodeRequest UnregisterNodeResponse",
        "flwr.proto.fab_pb2": "Fab",
        "flwr.supercore.constant": "NodeStatus",
        "flwr.supercore.error": "ApiErrorCode",
    },
}
_IMPORT = re.compile(r"^from (flwr\S*) import (?:\(([^)]*)\)|([^#\n]*))", re.MULTILINE)


@pytest.mark.parametrize("module", IMPORTS, ids=lambda module: module.__name__)
def test_these_names_are_imported_from_flower_and_no_others(module):
    source = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for place, several, one in _IMPORT.findall(source):
        names = re.sub(r"#.*", "", several or one).replace(",", " ").split()
        found.setdefault(place, set()).update(names)
    assert found == {place: set(names.split()) for place, names in IMPORTS[module].items()}
    assert "import flwr" not in source


@pytest.mark.parametrize("message", FIELDS, ids=lambda message: message.__name__)
def test_flowers_messages_have_the_fields_that_are_used(message):
    assert set(FIELDS[message].split()) <= set(message.DESCRIPTOR.fields_by_name)


@pytest.fixture(scope="module")
def superlink():
    """The real SuperLink's app."""
    return create_app()


def test_the_superlink_has_the_paths_that_are_called(superlink):
    paths = superlink.openapi()["paths"]
    assert {path for path in CALLS if "post" not in paths.get(path, {})} == set()
    assert {path for path in CALLS if path.startswith("/v1/fleet/")} <= set(FLEET_PATHS)


@pytest.mark.parametrize("path", CALLS)
def test_each_path_takes_and_gives_the_message_that_is_sent_and_read(path):
    asked, answered = CALLS[path]
    assert PROTOBUF_REQUEST_TYPES["POST", path] is asked
    handlers = [route.endpoint for router in (fleet, control) for route in router.routes if route.path == path]
    assert [get_type_hints(handler)["return"] for handler in handlers] == [answered]
    assert PROTOBUF_MEDIA_TYPE == common.flower.MEDIA_TYPE


def test_node_authentication_reads_these_headers():
    assert core.FLEET_HTTP_PUBLIC_KEY_HEADER.lower() == "flwr-public-key"
    assert core.FLEET_HTTP_SIGNATURE_HEADER.lower() == "flwr-signature"
    assert constant.TIMESTAMP_HEADER.lower() == "flwr-timestamp"
    source = inspect.getsource(node_auth.authenticate_node)
    for name in ("FLEET_HTTP_PUBLIC_KEY_HEADER", "FLEET_HTTP_SIGNATURE_HEADER", "TIMESTAMP_HEADER"):
        assert f"request.headers[{name}]" in source
    assert 'timestamp.encode("ascii"), signature' in source


def test_functions_take_what_they_are_given():
    for function, given in [
        (get_object_tree, "obj"),
        (get_all_nested_objects, "obj"),
        (remove_content_from_message, "message"),
        (message_to_proto, "message"),
    ]:
        assert given in inspect.signature(function).parameters
    for name in ("_runtime_client", "run"):
        assert isinstance(inspect.getattr_static(HttpGrid, name), property)
    calls = inspect.signature(HttpGrid._runtime_client.fget).return_annotation
    assert calls == "RuntimeHttpClient" or calls.__name__ == "RuntimeHttpClient"
    for name in ("PullMessages", "PullObject", "PushMessages", "PushObject", "ConfirmMessageReceived"):
        assert list(inspect.signature(getattr(RuntimeHttpClient, name)).parameters) == ["self", "request"]
    grid = HttpGrid("127.0.0.1:1", token="t")
    assert grid.node.node_id == constant.SUPERLINK_NODE_ID


def test_a_message_of_ours_is_three_parts_and_one_of_them_has_our_bytes():
    message = instruction()
    parts = list(iterate_object_tree(get_object_tree(message)))
    (record,) = [part.object_id for part in parts if not part.children]
    assert len(parts) == 3
    assert record == record_of(get_object_tree(message))
    content = get_all_nested_objects(message)[record].deflate()
    assert ConfigRecord.inflate(content)["envelope"] == unpack(content) == ENVELOPE


def test_the_superlink_hands_a_short_message_on_as_it_is():
    head = message_to_proto(instruction())
    assert short_envelope(message_to_proto(message_from_proto(head))) == ENVELOPE


# --- a link ---


@pytest.fixture
def linked(tmp_path):
    """A link to a coordinator, and the server behind it."""
    with ExitStack() as stack:
        yield lambda coordinator, **options: stack.enter_context(fleet_play.linked(tmp_path, coordinator, **options))


@pytest.fixture
def long(monkeypatch):
    """A few bytes are a long envelope."""
    monkeypatch.setattr(common.flower, "SHORT_ENVELOPE_BYTES", 3)


def test_a_short_message_and_its_answer_take_one_call_each(linked):
    coordinator = Coordinator(pull_messages=short(instruction()))
    link, server = linked(coordinator)
    link.connect()
    delivery = link.receive()
    assert delivery.envelope == ENVELOPE
    assert not delivery.message.content
    link.reply(delivery, b"answer")
    assert [path.rpartition("/")[2] for path in server.paths] == ["activate-node", "pull-messages", "push-messages"]
    (head,), (tree,) = coordinator.announced.messages_list, coordinator.announced.message_object_trees
    assert short_envelope(head) == b"answer"
    assert (tree.object_id, list(tree.children)) == (head.metadata.message_id, [])
    assert head.metadata.reply_to_message_id == delivery.message.metadata.message_id


def test_a_node_connects_takes_a_message_and_answers_it(linked, long):
    coordinator = Coordinator()
    link, server = linked(coordinator)
    link.connect()
    link.heartbeat()
    delivery = link.receive()
    assert delivery.envelope == ENVELOPE
    link.reply(delivery, b"answer")
    head = coordinator.announced.messages_list[0]
    assert (head.metadata.src_node_id, head.metadata.dst_node_id, head.metadata.run_id) == (7, 1, 5)
    assert head.metadata.reply_to_message_id == delivery.message.metadata.message_id
    assert not head.content.ByteSize()
    assert coordinator.announced.clientapp_runtime_list == [0.0]
    record = record_of(coordinator.announced.message_object_trees[0])
    assert unpack(coordinator.pushed[record][0]) == b"answer"
    link.close()
    assert server.paths[-1] == "/v1/fleet/deactivate-node"


def refusing(coordinator, *names):
    """A coordinator that answers some calls as the SuperLink does where it does not let a node in."""
    refusal = whole(b'{"code": 2004}', b"HTTP/1.1 412 Precondition Failed\r\ncontent-type: application/json\r\n")
    return lambda asked: refusal if asked.path.rpartition("/")[2] in names else coordinator(asked)


def test_a_node_that_is_taken_for_there_leaves_under_its_number_and_comes_anew(linked, tmp_path):
    """The coordinator shall see that it is another life: what the last one was handed is lost."""
    memory = tmp_path / "node.number"
    first, _ = linked(Coordinator(), number=NodeNumber(memory))
    first.connect()
    assert memory.read_text() == "7"
    left = []

    def leave(request):
        left.append(request.node_id)
        return fleet_pb2.DeactivateNodeResponse()

    coordinator = Coordinator(deactivate_node=leave)
    refused = refusing(coordinator, "activate-node")
    second, server = linked(lambda asked: coordinator(asked) if left else refused(asked), number=NodeNumber(memory))
    second.connect()
    assert left == [7]
    assert [path.rpartition("/")[2] for path in server.paths] == ["activate-node", "deactivate-node", "activate-node"]


def test_a_superlink_that_fails_while_a_node_comes_back_is_no_refusal(linked, tmp_path):
    (tmp_path / "node.number").write_text("7")
    broken, refused = whole(b"", b"HTTP/1.1 503 No\r\n"), refusing(Coordinator(), "activate-node")
    link, _ = linked(
        lambda asked: broken if asked.path.endswith("deactivate-node") else refused(asked),
        number=NodeNumber(tmp_path / "node.number"),
    )
    with pytest.raises(CallError, match="HTTP 503"):
        link.connect()


@pytest.mark.parametrize("kept", [None, "", "seven", "7"])
def test_without_a_number_that_the_superlink_knows_a_refused_node_stays_out(linked, tmp_path, kept):
    memory = tmp_path / "node.number"
    if kept is not None:
        memory.write_text(kept)
    link, _ = linked(refusing(Coordinator(), "activate-node", "deactivate-node"), number=NodeNumber(memory))
    with pytest.raises(AccessError, match="does not let this node in"):
        link.connect()


def test_an_answer_that_is_not_wanted_is_told_from_a_connection_that_is_lost(linked):
    refused, _ = linked(refusing(Coordinator(), "push-messages"))
    with pytest.raises(ProtocolError):
        refused.reply(refused.receive(), b"answer")
    coordinator = Coordinator()
    for status, error in ((503, CallError), (429, CallError), (413, ProtocolError)):
        answer = whole(b"", b"HTTP/1.1 %d No\r\n" % status)
        link, _ = linked(
            lambda asked, answer=answer: answer if asked.path.endswith("push-messages") else coordinator(asked)
        )
        with pytest.raises(error, match=f"HTTP {status}"):
            link.reply(link.receive(), b"answer")


def test_the_record_is_sent_once_and_no_other_part(linked, long):
    coordinator = Coordinator()
    link, _ = linked(coordinator)
    link.connect()
    link.reply(link.receive(), b"answer")
    ((content,),) = coordinator.pushed.values()
    assert unpack(content) == b"answer"


def test_a_whole_life_asks_for_no_bundle_and_registers_nothing(linked):
    link, server = linked(Coordinator())
    link.connect()
    for _ in range(3):
        link.heartbeat()
        link.reply(link.receive(), b"answer")
    link.close()
    assert set(server.paths) <= {path for path in CALLS if path.startswith("/v1/fleet/")}
    assert not {path for path in server.paths if "fab" in path or "register" in path or "run" in path}
    assert "GetFab" not in Path(inspect.getfile(client.app)).read_text(encoding="utf-8")


def test_every_call_is_signed_as_the_superlink_checks_it(linked):
    link, server = linked(Coordinator())
    link.connect()
    link.heartbeat()
    for asked in server.asked:
        public = bytes_to_public_key(b64decode(asked.headers["flwr-public-key"], validate=True))
        stamp = asked.headers["flwr-timestamp"].encode("ascii")
        assert verify_signature(public, stamp, b64decode(asked.headers["flwr-signature"], validate=True))
    assert len({asked.headers["flwr-timestamp"] for asked in server.asked}) == 2
