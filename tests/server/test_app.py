"""The transport over Flower's grid, with a SuperLink of one page; tests/client/test_app.py holds the contract."""

import time

import httpx
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.proto.error_pb2 import Error
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse

import common.flower
import server.app
from common.errors import TransportError
from common.flower import pack, record_of, short_envelope, unpack
from server.app import GridTransport, app, main
from server.config import WaitingConfig
from server.pacing import Patience

WAITING = WaitingConfig(least_poll_seconds=0.001, most_poll_seconds=0.005, exchange_seconds=0.3)
TREE = ObjectTree(children=[ObjectTree(children=[ObjectTree(object_id="record")])])


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
            metadata = Metadata(message_id=f"reply to {name}", reply_to_message_id=name)
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

    def __init__(self, envelope=b"answer", *, record=None, tree=None, after=0, missing=0, found=True, error=""):
        Reply.counter += 1
        self.name = f"record {Reply.counter}"
        self.tree = tree or ObjectTree(children=[ObjectTree(children=[ObjectTree(object_id=self.name)])])
        self.record = pack(envelope)["cloister"].deflate() if record is None else record
        self.after, self.missing, self.found, self.error = after, missing, found, error

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


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """Flower knows who sends a message by its task, of which there is none here."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)


@pytest.fixture
def long(monkeypatch):
    """A few bytes are a long envelope."""
    monkeypatch.setattr(common.flower, "SHORT_ENVELOPE_BYTES", 3)


def exchange(grid, *sites, patience=None):
    transport = GridTransport(grid, {f"n{number}": number for number in range(9)}, WAITING)
    if patience is not None:
        transport.patience = patience
    return dict(transport.exchange({site: f"order to {site}".encode() for site in sites}))


def test_short_orders_and_answers_are_one_call_out_and_one_in():
    grid = Grid(n1=Reply.short(), n2=Reply.short())
    assert exchange(grid, "n1", "n2") == {"n1": b"short", "n2": b"short"}
    assert grid.contents == {1: b"order to n1", 2: b"order to n2"}
    assert (grid.announced, grid.looked_for, grid.asked, grid.confirmed) == ([2], [2], [], [])


def test_many_sites_are_looked_for_a_few_at_a_time():
    grid = Grid(**{f"n{number}": Reply.short() for number in range(80)})
    transport = GridTransport(grid, {f"n{number}": number for number in range(80)}, WAITING)
    assert len(dict(transport.exchange({f"n{number}": b"order" for number in range(80)}))) == 80
    assert grid.looked_for == [32, 32, 16]


def test_each_site_gets_its_own_order_and_its_answer_comes_back(long):
    grid = Grid(n1=Reply(b"one"), n2=Reply(b"two", after=3))
    assert exchange(grid, "n1", "n2") == {"n1": b"one", "n2": b"two"}
    assert grid.contents == {1: b"order to n1", 2: b"order to n2"}
    assert sorted(grid.confirmed) == ["reply to order 0", "reply to order 1"]


def test_an_order_outlives_its_exchange_by_a_second():
    grid = Grid(n1=Reply())
    exchange(grid, "n1", patience=Patience(20.0, 1, 5.0))
    (metadata,) = grid.pushed.values()
    assert metadata.ttl == 21.0


def test_a_silent_site_ends_with_the_patience():
    started = time.monotonic()
    assert exchange(Grid(n1=Reply()), "n1", "n2", patience=Patience(0.2, 2, 0.1)) == {"n1": b"answer"}
    assert 0.2 <= time.monotonic() - started < 2


def test_once_enough_are_there_the_others_are_late():
    started = time.monotonic()
    assert exchange(Grid(n1=Reply()), "n1", "n2", patience=Patience(60.0, 1, 0.1)) == {"n1": b"answer"}
    assert time.monotonic() - started < 5


def test_a_part_that_is_announced_and_never_sent_holds_up_nobody():
    grid = Grid(n1=Reply(missing=10**9), n2=Reply(b"two", after=5))
    started = time.monotonic()
    assert exchange(grid, "n1", "n2", patience=Patience(0.3, 2, 0.1)) == {"n2": b"two"}
    assert time.monotonic() - started < 3


def test_a_part_that_comes_a_little_later_is_waited_for():
    assert exchange(Grid(n1=Reply(missing=4)), "n1") == {"n1": b"answer"}


EVIL = {
    "nothing": Reply(record=b""),
    "no record": Reply(record=b"\xff" * 40),
    "unknown kind": Reply(record=b"Unheard  0\x00"),
    "numbers": Reply(record=ConfigRecord({"envelope": [1, 2, 3]}).deflate()),
    "content": Reply(record=RecordDict().deflate()),
    "a flat tree": Reply(tree=ObjectTree(object_id="flat")),
    "a wide tree": Reply(tree=ObjectTree(children=[ObjectTree()] * 1000)),
    "a part that is gone": Reply(found=False),
    "an error": Reply(tree=ObjectTree(object_id="e"), error="node unavailable"),
    "a short one of nothing": Reply.short(RecordDict({"cloister": ConfigRecord()})),
    "a short one of text": Reply.short(RecordDict({"cloister": ConfigRecord({"envelope": "text"})})),
    "a short one of another": Reply.short(RecordDict({"other": ConfigRecord({"envelope": b"a"})})),
    "a short one of two": Reply.short(RecordDict({name: ConfigRecord({"envelope": b"a"}) for name in "ab"})),
}


@pytest.mark.parametrize("reply", EVIL.values(), ids=EVIL)
def test_no_answer_raises_or_takes_another_with_it(reply):
    grid = Grid(n1=reply, n2=Reply(b"two", after=2))
    started = time.monotonic()
    assert exchange(grid, "n1", "n2", patience=Patience(30.0, 2, 30.0)) == {"n2": b"two"}
    assert time.monotonic() - started < 5  # a bad answer is an answer: nobody waits for a second one


class Back:
    """Nodes that connect anew, one look after the other."""

    def __init__(self, *looks):
        self.looks = list(looks)

    def begin(self):
        pass

    def among(self, sites):
        return tuple(site for site in (self.looks.pop(0) if self.looks else ()) if site in sites)


def returning(grid, back, *sites):
    transport = GridTransport(grid, {f"n{number}": number for number in range(9)}, WAITING, back)
    return dict(transport.exchange({site: f"order to {site}".encode() for site in sites}))


def test_an_order_to_a_node_that_came_anew_is_sent_again_the_same_to_the_byte():
    """The first was lost with the node's last life."""
    grid = Grid(n1=Reply.short(), n2=Reply.short(orders=2))
    assert returning(grid, Back((), ("n1", "n2")), "n1", "n2") == {"n1": b"short", "n2": b"short"}
    assert grid.announced == [2, 1], "n1 had answered"
    assert grid.all_contents == [(1, b"order to n1"), (2, b"order to n2"), (2, b"order to n2")]


def test_the_first_of_two_answers_to_one_order_counts():
    grid = Grid(n1=Reply.short(after=3), n2=Reply.short(after=30))
    started = time.monotonic()
    assert returning(grid, Back(("n1",), ("n1",)), "n1", "n2") == {"n1": b"short", "n2": b"short"}
    assert grid.announced == [2, 1, 1]
    assert time.monotonic() - started < 0.3, "the second answer is not waited for"


def test_a_part_of_the_last_life_that_never_comes_is_not_waited_for_when_the_new_one_answers(long):
    grid = Grid(n1=Reply(missing=10**9))
    looks = Back((), ("n1",))
    real, grid.PushMessages = grid.PushMessages, None

    def push(request):
        if grid.pushed:
            grid.replies["n1"] = Reply(b"anew")
        return real(request)

    grid.PushMessages = push
    assert returning(grid, looks, "n1") == {"n1": b"anew"}


class Failing(Grid):
    """A SuperLink that fails at what some node has handed in."""

    def __init__(self, *bad, times=10**9, **replies):
        super().__init__(**replies)
        self.bad, self.times = bad, times

    def PullMessages(self, request):  # noqa: N802 - Flower's name
        for name in request.message_ids:
            if f"n{self.pushed[name].dst_node_id}" in self.bad and self.times:
                self.times -= 1
                request = httpx.Request("POST", "https://superlink")
                raise httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))
        return super().PullMessages(request)


def test_an_answer_at_which_the_superlink_fails_ends_nobody_elses():
    grid = Failing("n2", n1=Reply.short(), n2=Reply.short(), n3=Reply.short(after=4))
    started = time.monotonic()
    assert exchange(grid, "n1", "n2", "n3", patience=Patience(30.0, 3, 30.0)) == {"n1": b"short", "n3": b"short"}
    assert time.monotonic() - started < 5


def test_a_superlink_that_fails_once_or_twice_is_asked_again():
    grid = Failing("n2", times=2, n1=Reply.short(), n2=Reply.short())
    assert exchange(grid, "n1", "n2") == {"n1": b"short", "n2": b"short"}


def test_a_superlink_that_fails_at_an_order_is_told_in_a_sentence():
    class Full(Grid):
        def PushMessages(self, request):  # noqa: N802 - Flower's name
            request = httpx.Request("POST", "https://superlink")
            raise httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))

    with pytest.raises(TransportError, match="failed at an order: HTTP 500"):
        exchange(Full(), "n1")


def test_a_long_reason_is_cut_in_the_log(capsys):
    exchange(Grid(n1=Reply(tree=ObjectTree(object_id="e"), error="x" * 100_000)), "n1")
    assert len(capsys.readouterr().out) < 2000


def test_nothing_but_the_one_record_is_asked_for(long):
    grid = Grid(n1=Reply())
    exchange(grid, "n1")
    assert grid.asked == [grid.replies["n1"].name]


def test_a_site_without_a_node_is_told_before_anything_is_sent():
    grid = Grid()
    with pytest.raises(TransportError, match="site stranger has no node"):
        exchange(grid, "n1", "stranger")
    assert not grid.pushed


def test_a_node_that_has_never_connected_is_sent_its_order_once_it_has():
    """Until then the SuperLink takes none for it."""
    grid = Grid(n1=Reply.short())
    grid.takes = False

    class Comes(Back):
        def among(self, sites):
            grid.takes = grid.takes or len(self.looks) == 1
            return super().among(sites)

    assert returning(grid, Comes((), ("n1",)), "n1") == {"n1": b"short"}
    assert grid.announced == [1, 1]


def test_a_superlink_that_takes_no_order_leaves_all_silent():
    grid = Grid()
    grid.takes = False
    started = time.monotonic()
    assert exchange(grid, "n1", patience=Patience(0.2, 1, 0.1)) == {}
    assert time.monotonic() - started >= 0.2


def test_nobody_asked_nobody_answers():
    assert exchange(Grid()) == {}


# --- the ServerApp ---------------------------------------------------------------------------------------------------


class Context:
    def __init__(self, home, **changes):
        self.run_id = 5
        self.run_config = {"home": str(home), "plan": "ab", "resume": "no", "enough": "no", **changes}


@pytest.fixture
def wanted(monkeypatch):
    """Every submission is the one that the run's folder waits for."""
    monkeypatch.setattr(server.app, "find_signed_plan", lambda *_: None)
    monkeypatch.setattr(server.app, "run_of", lambda *_: None)
    monkeypatch.setattr(server.app, "is_wanted", lambda *_: True)


@pytest.fixture
def launched(monkeypatch, wanted):
    seen = []
    monkeypatch.setattr("server.launch.launch", lambda *args, **options: seen.append((args, options)))
    return seen


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("enough", [True, False])
def test_a_run_is_launched_as_it_was_submitted(launched, tmp_path, resume, enough):
    words = {True: "yes", False: "no"}
    app(Grid(), Context(tmp_path, resume=words[resume], enough=words[enough]))
    ((home, digest, _), options) = launched[0]
    assert (home.path, digest) == (tmp_path, "ab")
    assert options == {"resume": resume, "wait_for_all": not enough}
    assert main is not None


def test_a_submission_that_was_given_up_conducts_nothing(launched, monkeypatch, tmp_path):
    monkeypatch.setattr(server.app, "is_wanted", lambda *_: False)
    app(Grid(), Context(tmp_path))
    assert launched == []


def test_what_ends_a_run_comes_out_of_the_app(monkeypatch, wanted, tmp_path):
    def fail(*_, **__):
        raise TransportError("nobody is reached")

    monkeypatch.setattr("server.launch.launch", fail)
    with pytest.raises(TransportError):
        app(Grid(), Context(tmp_path))


def test_nodes_are_found_by_the_key_that_was_enrolled(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from server.control import Node as Registered

    a, b = Registered(7, b"key a\n", True, "noon"), Registered(8, b"key b", False)
    control = SimpleNamespace(nodes=lambda: (a, b, Registered(9, b"other", True)))
    sites = [SimpleNamespace(name=name, node_key=f"key {name}\n") for name in "abc"]
    assert server.app._nodes_of(control, sites) == {"a": a, "b": b}
    monkeypatch.setattr(server.app, "load_coordinator_config", lambda _: None)
    monkeypatch.setattr(server.app, "control_of", lambda *_: control)
    transport = server.app._transport(Grid(), SimpleNamespace(config=tmp_path), sites, WAITING)
    assert transport._nodes == {"a": 7, "b": 8}
    assert transport._arrivals._known == {"a": "noon", "b": ""}
