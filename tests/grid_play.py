"""Flower's grid and a SuperLink of one page behind it, for the coordinator's side of an exchange."""

import httpx
from flwr.common.serde import recorddict_to_proto
from flwr.proto.error_pb2 import Error
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse

from common.flower import pack, record_of, short_envelope, unpack
from server.app import GridTransport
from server.config import WaitingConfig

WAITING = WaitingConfig(least_poll_seconds=0.001, most_poll_seconds=0.005, exchange_seconds=0.3)


def failure() -> httpx.HTTPStatusError:
    """As Flower's client raises where the SuperLink fails at a call."""
    request = httpx.Request("POST", "https://superlink.example")
    return httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))


class Run:
    run_id = 5


class Grid:
    """Flower's grid and the SuperLink behind it: `replies` says what each node's order brings."""

    run = Run()
    node = Node(node_id=1)

    def __init__(self, **replies):
        self.replies = replies
        self.pushed, self.confirmed, self.parts, self.asked = {}, [], {}, []
        self._runtime_client = self
        self.orders, self.contents, self.announced, self.looked_for = {}, {}, [], []
        self.all_contents = []
        self.takes = True

    def PushMessages(self, request):  # noqa: N802 - Flower's name
        names = []
        for head, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            names.append(f"order {len(self.pushed)}")
            self.pushed[names[-1]] = head.metadata
            if (envelope := short_envelope(head)) is None:
                self.orders[record_of(tree)] = head.metadata.dst_node_id
            else:
                self.contents[head.metadata.dst_node_id] = envelope
                self.all_contents.append((head.metadata.dst_node_id, envelope))
        self.announced.append(len(names))
        if not self.takes:
            return PushAppMessagesResponse(message_ids=["" for _ in names])
        return PushAppMessagesResponse(message_ids=names, objects_to_push=list(self.orders), session_id="s")

    def PushObject(self, request):  # noqa: N802 - Flower's name
        self.contents[self.orders[request.object_id]] = unpack(request.object_content)

    def PullMessages(self, request):  # noqa: N802 - Flower's name
        heads, trees = [], []
        self.looked_for.append(len(request.message_ids))
        for name in request.message_ids:
            reply = self.replies.get(f"n{self.pushed[name].dst_node_id}")
            if reply is None or not reply.due():
                continue
            if sum(one.dst_node_id == self.pushed[name].dst_node_id for one in self.pushed.values()) < reply.orders:
                continue
            metadata = Metadata(message_id=f"reply to {name}", reply_to_message_id=name, src_node_id=reply.source)
            error = Error(code=3, reason=reply.error) if reply.error else None
            heads.append(Message(metadata=metadata, error=error, content=reply.content))
            trees.append(reply.tree)
            self.parts[f"reply to {name}"] = reply
        return PullAppMessagesResponse(messages_list=heads, message_object_trees=trees)

    def PullObject(self, request):  # noqa: N802 - Flower's name
        self.asked.append(request.object_id)
        return next(reply for reply in self.parts.values() if reply.name == request.object_id).part()

    def ConfirmMessageReceived(self, request):  # noqa: N802 - Flower's name
        self.confirmed.append(request.message_object_id)


class Reply:
    """What one node says."""

    counter = 0
    content = None
    orders = 1
    source = 7

    def __init__(self, envelope=b"answer", *, record=None, tree=None, after=0, missing=0, found=True, error=""):
        Reply.counter += 1
        self.name = f"record {Reply.counter}"
        self.tree = tree or ObjectTree(children=[ObjectTree(children=[ObjectTree(object_id=self.name)])])
        self.record = pack(envelope)["cloister"].deflate() if record is None else record
        self.after, self.missing, self.found, self.error = after, missing, found, error

    @classmethod
    def away(cls, **options):
        """The SuperLink's own word: the node is away, and its order is dropped."""
        reply = cls(tree=ObjectTree(object_id="unavailable"), error="node unavailable", **options)
        reply.source = 1
        return reply

    @classmethod
    def short(cls, content=None, **options):
        """One that is whole in its head."""
        orders = options.pop("orders", 1)
        reply = cls(tree=ObjectTree(object_id="whole"), **options)
        reply.orders = orders
        reply.content = recorddict_to_proto(pack(b"short") if content is None else content)
        return reply

    def due(self):
        self.after -= 1
        return self.after < 0

    def part(self):
        self.missing -= 1
        if self.missing >= 0:
            return PullObjectResponse(object_found=True)
        return PullObjectResponse(
            object_found=self.found, object_available=self.found, object_content=self.record if self.found else b""
        )


def exchange(grid, *sites, patience=None):
    transport = GridTransport(grid, {f"n{number}": number for number in range(9)}, WAITING)
    if patience is not None:
        transport.patience = patience
    return dict(transport.exchange({site: f"order to {site}".encode() for site in sites}))


class Back:
    """Nodes that connect anew, one look after the other."""

    def __init__(self, *looks):
        self.looks = list(looks)

    def begin(self):
        pass

    def among(self, sites, lost=()):
        self.lost = set(lost)
        return tuple(site for site in (self.looks.pop(0) if self.looks else ()) if site in sites)


def returning(grid, back, *sites):
    transport = GridTransport(grid, {f"n{number}": number for number in range(9)}, WAITING, back)
    return dict(transport.exchange({site: f"order to {site}".encode() for site in sites}))
