"""The answers of one exchange, short and long, of sites that say what they like."""

import time

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree

import common.flower
import server.mailbox
from server.app import GridTransport
from server.pacing import Patience
from tests.grid_play import WAITING, Back, Grid, Reply, exchange, failure, returning


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


def test_many_sites_are_looked_for_a_few_at_a_time():
    grid = Grid(**{f"n{number}": Reply.short() for number in range(80)})
    transport = GridTransport(grid, {f"n{number}": number for number in range(80)}, WAITING)
    assert len(dict(transport.exchange({f"n{number}": b"order" for number in range(80)}))) == 80
    assert grid.looked_for == [32, 32, 16]


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


def test_an_order_that_was_dropped_for_a_node_that_is_away_is_sent_again_when_it_is_back():
    """Flower drops it, and any answer of it, at a look while the node is away: also for a moment, in an orderly way."""
    grid, back = Grid(n1=Reply.away(), n2=Reply.short(after=9)), Back((), (), ("n1",))
    real = grid.PushMessages

    def push(request):
        if grid.pushed:
            assert back.lost == {"n1"}
            grid.replies["n1"] = Reply.short()
        return real(request)

    grid.PushMessages = push
    assert returning(grid, back, "n1", "n2") == {"n1": b"short", "n2": b"short"}
    assert grid.announced == [2, 1]


def test_a_node_that_stays_away_is_waited_for_a_little(monkeypatch):
    monkeypatch.setattr(server.mailbox, "_AWAY_SECONDS", 0.1)
    started = time.monotonic()
    grid = Grid(n1=Reply.away(), n2=Reply.short())
    assert exchange(grid, "n1", "n2", patience=Patience(30.0, 2, 30.0)) == {"n2": b"short"}
    assert 0.1 < time.monotonic() - started < 5


class Failing(Grid):
    """A SuperLink that fails at what some node has handed in."""

    def __init__(self, *bad, times=10**9, **replies):
        super().__init__(**replies)
        self.bad, self.times = bad, times

    def PullMessages(self, request):  # noqa: N802 - Flower's name
        for name in request.message_ids:
            if f"n{self.pushed[name].dst_node_id}" in self.bad and self.times:
                self.times -= 1
                raise failure()
        return super().PullMessages(request)


def test_an_answer_at_which_the_superlink_fails_ends_nobody_elses(monkeypatch):
    monkeypatch.setattr(server.mailbox, "_FAILING_SECONDS", 0.1)
    grid = Failing("n2", n1=Reply.short(), n2=Reply.short(), n3=Reply.short(after=4))
    started = time.monotonic()
    assert exchange(grid, "n1", "n2", "n3", patience=Patience(30.0, 3, 30.0)) == {"n1": b"short", "n3": b"short"}
    assert time.monotonic() - started < 5


def test_a_superlink_that_fails_for_a_while_ends_nobodys():
    grid = Failing("n1", "n2", times=40, n1=Reply.short(), n2=Reply.short())
    assert exchange(grid, "n1", "n2", patience=Patience(30.0, 2, 30.0)) == {"n1": b"short", "n2": b"short"}


def test_a_superlink_that_fails_once_or_twice_is_asked_again():
    grid = Failing("n2", times=2, n1=Reply.short(), n2=Reply.short())
    assert exchange(grid, "n1", "n2") == {"n1": b"short", "n2": b"short"}


def test_a_long_reason_is_cut_in_the_log(capsys):
    exchange(Grid(n1=Reply(tree=ObjectTree(object_id="e"), error="x" * 100_000)), "n1")
    assert len(capsys.readouterr().out) < 2000


def test_nothing_but_the_one_record_is_asked_for(long):
    grid = Grid(n1=Reply())
    exchange(grid, "n1")
    assert grid.asked == [grid.replies["n1"].name]
