"""A SuperLink's side of the Fleet API for one node and one message, which a test may spoil at any place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree

from client.app import FleetLink
from common.flower import MESSAGE_TYPE, pack, parcel, record_of
from tests.evil_server import Answer, Asked, EvilServer, evil_server, whole

KEY = ec.generate_private_key(ec.SECP384R1())
ENVELOPE = b"sealed"

REQUESTS = {
    "activate-node": fleet_pb2.ActivateNodeRequest,
    "deactivate-node": fleet_pb2.DeactivateNodeRequest,
    "send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatRequest,
    "pull-messages": fleet_pb2.PullMessagesRequest,
    "push-messages": fleet_pb2.PushMessagesRequest,
    "pull-object": message_pb2.PullObjectRequest,
    "push-object": message_pb2.PushObjectRequest,
    "confirm-message-received": message_pb2.ConfirmMessageReceivedRequest,
}


def instruction(envelope: bytes = ENVELOPE) -> Message:
    """A message of ours as the coordinator's grid sends it."""
    metadata = Metadata(
        run_id=5,
        message_id="",
        src_node_id=1,
        dst_node_id=7,
        reply_to_message_id="",
        group_id="",
        created_at=1e9,
        ttl=1e9,
        message_type=MESSAGE_TYPE,
    )
    message = make_message(metadata=metadata, content=pack(envelope))
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def short(message: Message) -> fleet_pb2.PullMessagesResponse:
    """A message that is whole in its head, as the SuperLink hands it out."""
    tree = message_pb2.ObjectTree(object_id=message.object_id)
    return fleet_pb2.PullMessagesResponse(messages_list=[message_to_proto(message)], message_object_trees=[tree])


def announced(envelope: bytes) -> bytes:
    """What node 7 hands in as its answer."""
    sending = parcel(Message(pack(envelope), reply_to=instruction()))
    return fleet_pb2.PushMessagesRequest(
        node=Node(node_id=7),
        messages_list=[sending.head],
        message_object_trees=[sending.tree],
        clientapp_runtime_list=[0.0],
    ).SerializeToString()


class Coordinator:
    """Answers as a SuperLink does, with one message whose record is long; a test replaces what it likes."""

    def __init__(self, envelope: bytes = ENVELOPE, **changes) -> None:
        message = instruction(envelope)
        tree = get_object_tree(message)
        record = get_all_nested_objects(message)[record_of(tree)].deflate()
        head = message_to_proto(remove_content_from_message(message))
        self.pushed = {}
        self.answers = {
            "activate-node": fleet_pb2.ActivateNodeResponse(node_id=7),
            "deactivate-node": fleet_pb2.DeactivateNodeResponse(),
            "send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatResponse(success=True),
            "pull-messages": fleet_pb2.PullMessagesResponse(messages_list=[head], message_object_trees=[tree]),
            "pull-object": message_pb2.PullObjectResponse(
                object_found=True, object_available=True, object_content=record
            ),
            "confirm-message-received": message_pb2.ConfirmMessageReceivedResponse(),
            "push-messages": self._wanted,
            "push-object": self._stored,
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }

    def _wanted(self, request):
        self.announced = request
        tree = request.message_object_trees[0]
        names = [part.object_id for part in iterate_object_tree(tree)]
        return fleet_pb2.PushMessagesResponse(objects_to_push=[*names, *names, "f" * 64], session_id="s")

    def _stored(self, request):
        self.pushed.setdefault(request.object_id, []).append(request.object_content)
        return message_pb2.PushObjectResponse(stored=True)

    def __call__(self, asked: Asked) -> bytes:
        name = asked.path.removeprefix("/v1/fleet/")
        answer = self.answers[name]
        if callable(answer):
            answer = answer(REQUESTS[name].FromString(asked.body))
        return whole(answer if isinstance(answer, bytes) else answer.SerializeToString())


@contextmanager
def linked(folder: Path, coordinator: Answer, **options) -> Iterator[tuple[FleetLink, EvilServer]]:
    """A link to a coordinator, and the server behind it."""
    with evil_server(folder, coordinator) as server:
        link = FleetLink(server.address, server.authority, KEY, **{"proxy": "", "timeout_seconds": 5.0, **options})
        try:
            yield link, server
        finally:
            link.close()
