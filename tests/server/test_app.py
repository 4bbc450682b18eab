"""The transport over Flower's grid, with a SuperLink of one page; tests/client/test_app.py holds the contract."""

import time

import pytest

import common.flower
import server.app
from common.errors import TransportError
from server.app import app, main
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


def test_short_orders_and_answers_are_one_call_out_and_one_in():
    grid = Grid(n1=Reply.short(), n2=Reply.short())
    assert exchange(grid, "n1", "n2") == {"n1": b"short", "n2": b"short"}
    assert grid.contents == {1: b"order to n1", 2: b"order to n2"}
    assert (grid.announced, grid.looked_for, grid.asked, grid.confirmed) == ([2], [2], [], [])


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


def test_an_order_to_a_node_that_came_anew_is_sent_again_the_same_to_the_byte():
    """The first was lost with the node's last life."""
    grid = Grid(n1=Reply.short(), n2=Reply.short(orders=2))
    assert returning(grid, Back((), ("n1", "n2")), "n1", "n2") == {"n1": b"short", "n2": b"short"}
    assert grid.announced == [2, 1], "n1 had answered"
    assert grid.all_contents == [(1, b"order to n1"), (2, b"order to n2"), (2, b"order to n2")]


def test_a_superlink_that_fails_at_an_order_is_told_in_a_sentence():
    class Full(Grid):
        def PushMessages(self, request):  # noqa: N802 - Flower's name
            raise failure()

    with pytest.raises(TransportError, match="failed at an order: HTTP 500"):
        exchange(Full(), "n1")


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
        def among(self, sites, lost=()):
            grid.takes = grid.takes or len(self.looks) == 1
            return super().among(sites, lost)

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
    assert transport._arrivals._known == {"a": "noon"}, "b is away"
