import pytest

import server.arrivals
from common.errors import TransportError
from server.arrivals import Arrivals


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(server.arrivals, "time", clock)
    return clock


class Nodes:
    """When each site's node connected; a look may fail."""

    def __init__(self, **connected):
        self.connected, self.looks, self.error = connected, 0, None

    def __call__(self):
        self.looks += 1
        if self.error is not None:
            raise self.error
        return dict(self.connected)


def test_who_connects_anew_is_told_once(clock):
    nodes = Nodes(a="1", b="1", c="1")
    arrivals = Arrivals(nodes)
    arrivals.begin()
    nodes.connected |= {"a": "2", "b": "2"}
    clock.now += 2
    assert arrivals.among({"a", "c"}) == ("a",)
    clock.now += 2
    assert arrivals.among({"a", "b", "c"}) == ("b",)
    clock.now += 2
    assert arrivals.among({"a", "b", "c"}) == ()


def test_a_site_that_was_never_there_comes_anew_as_well(clock):
    nodes = Nodes(a="1")
    arrivals = Arrivals(nodes)
    clock.now += 2
    nodes.connected["b"] = "5"
    assert arrivals.among({"a", "b", "c"}) == ("b",)


def test_nobody_is_asked_in_the_first_two_seconds_nor_more_often_than_that(clock):
    nodes = Nodes(a="1")
    arrivals = Arrivals(nodes)
    arrivals.begin()
    for _ in range(100):
        arrivals.among({"a"})
        clock.now += 0.1
    assert nodes.looks <= 1 + 5
    clock.now += 10
    assert arrivals.among(()) == ()
    assert nodes.looks <= 1 + 5


def test_whose_order_is_lost_is_told_as_soon_as_it_is_there(clock):
    nodes = Nodes(a="1", b="1")
    arrivals = Arrivals(nodes)
    del nodes.connected["b"]
    clock.now += 2
    assert arrivals.among({"a", "b"}, {"b"}) == ()
    nodes.connected["b"] = "1"  # brought back by a sign of life alone
    clock.now += 2
    assert arrivals.among({"a", "b"}, {"b"}) == ("b",)


def test_a_node_that_comes_and_goes_is_told_five_times_an_exchange(clock):
    nodes = Nodes(a="0")
    arrivals = Arrivals(nodes)
    for told in (5, 5):
        arrivals.begin()
        seen = 0
        for number in range(20):
            nodes.connected["a"] = f"{told} {number} {clock.now}"
            clock.now += 2
            seen += len(arrivals.among({"a"}))
        assert seen == told


def test_a_look_that_fails_is_none(clock):
    nodes = Nodes(a="1")
    arrivals = Arrivals(nodes)
    clock.now += 2
    nodes.connected["a"], nodes.error = "2", TransportError("the SuperLink is gone")
    assert arrivals.among({"a"}) == ()
    nodes.error = None
    clock.now += 2
    assert arrivals.among({"a"}) == ("a",)
