"""The hospital's end of Flower's Fleet API: poll for a message, hand it in, send the answer, and nothing else.

The stock SuperNode installs and runs whatever code bundle the SuperLink hands out. This link never asks for one: the
call for it does not exist here. It leans on Flower's inner parts, all of them imported in this file, and
tests/client/test_app.py lists them, so that an upgrade shows at once what has changed.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from google.protobuf.message import Message as Protobuf

from client.node_number import NodeNumber
from common.channel import CallError, Channel
from common.envelope import MESSAGE_LIMIT_BYTES, SHORT_ENVELOPE_BYTES
from common.errors import AccessError, ProtocolError, TransportError
from common.flower import MESSAGE_TYPE, Parcel, answerable, pack, parcel, record_of, short_envelope, unpack

from flwr.app import Message  # isort: skip
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, TIMESTAMP_HEADER  # isort: skip
from flwr.proto.fleet_pb2 import (  # isort: skip
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse  # isort: skip
from flwr.proto.message_pb2 import (  # isort: skip
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node  # isort: skip
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER  # isort: skip
from flwr.supercore.date import now  # isort: skip
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message  # isort: skip

_log = structlog.get_logger()

HEARTBEAT_SECONDS: float = HEARTBEAT_DEFAULT_INTERVAL
"""The SuperLink takes a node for gone that was silent for longer."""

_FLEET = "/v1/fleet"
_HEAD_BYTES = 1 << 16
"""The longest answer that holds no envelope: metadata, and a tree of three names."""
_GOODBYE_SECONDS = 1.0
_OBJECT_SECONDS = 60.0
_OBJECT_POLL_SECONDS, _OBJECT_POLL_GROWTH = 0.01, 1.5
_UNKNOWN_NODE = frozenset({401, 403, 404})
_FINAL = frozenset(range(400, 500)) - {408, 429}
"""Statuses of HTTP after which the same call is never taken; 408 and 429 are too slow and too many."""

Answer = TypeVar("Answer", bound=Protobuf)


@dataclass(frozen=True, eq=False)
class Delivery:
    """A message that came in.

    Attributes:
        message: As Flower needs it for the answer.
        envelope: The bytes in it; nothing about them was checked.
    """

    message: Message
    envelope: bytes


class FleetLink:
    """One node's calls to the coordinator's port.

    Guarantees:
        It calls out and never listens. It asks for messages, their parts, and nothing else; no code bundle is asked
        for. An answer from the other side is bounded in length and number of parts before it is read. Whatever is in
        an answer, it is a `Delivery`, nothing, or a `TransportError`.

    Edge cases:
        A message whose parts are still on their way to the SuperLink is waited for up to a minute. A message that is
        none of ours is left unanswered, and noted in the log.

    Args:
        address: HOST:PORT of the coordinator.
        authority: PEM of the pinned certificate authority.
        key: The node's key, which the coordinator has registered.
        limit_bytes: The longest part of a message.
        timeout_seconds: For each wait on the network.
        proxy: As `common.channel.Channel`.
        number: Where the number is kept that the SuperLink gave this node.
    """

    def __init__(  # noqa: PLR0913 - each of them is one decision about the network
        self,
        address: str,
        authority: str,
        key: EllipticCurvePrivateKey,
        *,
        limit_bytes: int = MESSAGE_LIMIT_BYTES,
        timeout_seconds: float = 30.0,
        proxy: str | None = None,
        number: NodeNumber | None = None,
    ) -> None:
        self._key = key
        self._number = number or NodeNumber(None)
        self._public = public_key_to_bytes(key.public_key())
        self._channel = Channel(
            address,
            authority,
            "SuperNode",
            self._signed_headers,
            limit_bytes=limit_bytes,
            timeout_seconds=timeout_seconds,
            proxy=proxy,
        )
        self._node = Node()

    def connect(self) -> None:
        """Tell the SuperLink that this node is there, and newly so.

        Edge cases:
            To the SuperLink a node that was killed is there for another minute, and cannot come a second time. It takes
            its leave under the number that it had before, and comes: the coordinator shall see that it is another life,
            since what the last one was handed is lost.

        Raises:
            TransportError: When it cannot be reached, is another one, or does not know this node's key.
        """
        try:
            self._activate()
        except CallError as error:
            if not _is_refusal(error):
                raise
            self._come_anew(error)
        self._number.keep(self._node.node_id)

    def _activate(self) -> None:
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_SECONDS)
        self._node = Node(node_id=self._call("activate-node", request, ActivateNodeResponse).node_id)

    def _come_anew(self, refused: CallError) -> None:
        """Leave under the last number, which the SuperLink holds against the node's key, and come."""
        try:
            request = DeactivateNodeRequest(node_id=self._number.read())
            self._call("deactivate-node", request, DeactivateNodeResponse)
            self._activate()
        except CallError as error:
            raise (_unknown_node(refused) if _is_refusal(error) else error) from None

    def heartbeat(self) -> None:
        """Tell the SuperLink that this node is still there; safe to call from another thread.

        Raises:
            TransportError: When it does not hear, or has forgotten this node.
        """
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_SECONDS)
        if not self._call("send-node-heartbeat", request, SendNodeHeartbeatResponse).success:
            raise TransportError("the SuperLink does not know this node any more", hint="it connects again by itself")

    def receive(self) -> Delivery | None:
        """The next message for this node; None where there is none, or none of ours.

        Raises:
            TransportError: When the other side cannot be reached, or its parts do not come.
        """
        request, limit = PullMessagesRequest(node=self._node), _HEAD_BYTES + SHORT_ENVELOPE_BYTES
        answer = self._call("pull-messages", request, PullMessagesResponse, limit)
        if not answer.messages_list:
            return None
        try:
            return self._delivery(answer)
        except ProtocolError as error:
            _log.warning("message ignored", reason=error.message)
            return None

    def _delivery(self, answer: PullMessagesResponse) -> Delivery:
        if len(answer.message_object_trees) != len(answer.messages_list):
            raise ProtocolError("a message must come with the tree of its parts")
        head, tree = answer.messages_list[0], answer.message_object_trees[0]
        if head.metadata.message_type != MESSAGE_TYPE:
            raise ProtocolError("a message must be of our own type")
        envelope = short_envelope(head)
        message = answerable(head)
        if envelope is None:
            envelope = self._envelope(message.metadata.run_id, tree)
        return Delivery(message, envelope)

    def reply(self, delivery: Delivery, envelope: bytes) -> None:
        """Send the answer to a message.

        Raises:
            ProtocolError: When the SuperLink does not take it: the run is over there.
            TransportError: When the other side cannot be reached.
        """
        reply = Message(pack(envelope), reply_to=delivery.message)
        try:
            answer = self._announce(sending := parcel(reply))
            if sending.record_id in answer.objects_to_push:
                self._push(reply.metadata.run_id, answer.session_id, sending)
        except CallError as error:
            raise (ProtocolError(error.message) if error.status in _FINAL else error) from None

    def close(self) -> None:
        """Say goodbye where that is still possible, and close the connections."""
        self._channel.hurry(_GOODBYE_SECONDS)
        # Where it does not come through, the SuperLink notices by itself that the heartbeats stopped.
        with closing(self._channel), suppress(TransportError):
            if self._node.node_id:
                request = DeactivateNodeRequest(node_id=self._node.node_id)
                self._call("deactivate-node", request, DeactivateNodeResponse)

    # --- the parts of a message ---

    def _envelope(self, run_id: int, tree: ObjectTree) -> bytes:
        """The one record of a long message. Its head came with the call; the part between only names the record."""
        record = self._pull(run_id, record_of(tree))
        request = ConfirmMessageReceivedRequest(node=self._node, run_id=run_id, message_object_id=tree.object_id)
        self._call("confirm-message-received", request, ConfirmMessageReceivedResponse)
        return unpack(record)

    def _pull(self, run_id: int, name: str) -> bytes:
        deadline, pause = time.monotonic() + _OBJECT_SECONDS, _OBJECT_POLL_SECONDS
        while time.monotonic() < deadline:
            request = PullObjectRequest(node=self._node, run_id=run_id, object_id=name)
            answer = self._channel.call(f"{_FLEET}/pull-object", request, PullObjectResponse)
            if not answer.object_found:
                break
            if answer.object_available:
                return answer.object_content
            time.sleep(pause)
            pause *= _OBJECT_POLL_GROWTH
        raise TransportError("a part of a message did not come", hint="the coordinator sends it again")

    def _announce(self, sending: Parcel) -> PushMessagesResponse:
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[sending.head],
            message_object_trees=[sending.tree],
            # How long an answer took is nobody's business; the coordinator sees when it arrives.
            clientapp_runtime_list=[0.0],
        )
        return self._call("push-messages", request, PushMessagesResponse)

    def _push(self, run_id: int, session: str, sending: Parcel) -> None:
        request = PushObjectRequest(
            node=self._node,
            run_id=run_id,
            object_id=sending.record_id,
            object_content=sending.record,
            session_id=session,
        )
        if not self._call("push-object", request, PushObjectResponse).stored:
            raise TransportError("the SuperLink did not take an answer", hint="the coordinator asks again")

    # --- calls ---

    def _call(self, name: str, request: Protobuf, kind: type[Answer], limit_bytes: int = _HEAD_BYTES) -> Answer:
        return self._channel.call(f"{_FLEET}/{name}", request, kind, limit_bytes)

    def _signed_headers(self) -> Mapping[str, str]:
        stamp = now().isoformat()
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self._public).decode("ascii"),
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(self._key, stamp.encode("ascii"))).decode("ascii"),
        }


def _is_refusal(error: CallError) -> bool:
    return error.status in _UNKNOWN_NODE or bool(error.code)


def _unknown_node(error: CallError) -> AccessError:
    rule = f"the coordinator does not let this node in (HTTP {error.status}, Flower's code {error.code})"
    return AccessError(rule, "ask whether this site is enrolled there; `cloister-site doctor` compares the clocks")
