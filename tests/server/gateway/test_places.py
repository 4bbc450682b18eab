"""Strangers make way for each other, and never for want of a node's place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import parse_config
from common.errors import ConfigError
from server.gateway.limits import GatewayLimits
from server.gateway.places import Places

BOUNDS = {
    "connections": 9, "connections_per_address": 4, "connections_per_node": 2, "strangers": 3,
    "strangers_per_address": 2,
}  # fmt: skip


@pytest.fixture
def gone():
    """Numbers of those that had to make way, in order."""
    return []


@pytest.fixture
def enter(gone):
    places, count = Places(GatewayLimits(**BOUNDS)), iter(range(1000))

    def one(address):
        place, number = places.enter(address), next(count)
        place.on_evicted = lambda: gone.append(number)
        return place

    one.places = places
    return one


def test_of_an_address_with_its_full_part_the_first_makes_way(enter, gone):
    for _ in range(4):
        enter("a")
    enter("b")
    assert (gone, enter.places.taken) == ([0, 1], 3)


def test_where_all_are_taken_the_address_that_has_most_gives_its_first(enter, gone):
    for address in "abbc":
        enter(address)
    assert gone == [1]


def test_where_all_have_the_same_the_first_makes_way_but_for_one_from_where_a_node_was_heard(enter, gone):
    assert enter("hospital").admit(b"node")
    for address in ("hospital", "b", "c", "d", "e"):
        enter(address)
    assert gone == [2, 3]


def test_a_nodes_place_is_its_own_whoever_comes(enter, gone):
    node = enter("a")
    assert node.admit(b"node")
    assert node.admit(b"node")
    assert not node.admit(b"another node")
    for number in range(100):
        enter(f"{number % 7}")
    assert 0 not in gone
    assert enter.places.taken == 4


def test_nodes_have_parts_by_key_by_address_and_in_all(enter):
    assert [enter("a").admit(b"one") for _ in range(3)] == [True, True, False]
    assert [enter("a").admit(b"two") for _ in range(3)] == [True, True, False]
    assert not enter("a").admit(b"three")
    assert [enter("b").admit(key) for key in (b"three", b"four", b"five")] == [True, True, False]


def test_who_was_sent_away_is_no_node_any_more_and_leaves_once(enter):
    first, *_ = [enter("a") for _ in range(3)]
    assert not first.admit(b"node")
    first.leave()
    assert enter.places.taken == 2


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["enter", b"x", b"y", b"z", "leave"])), max_size=60)
)
def test_over_any_history_the_bounds_hold_and_each_newcomer_is_in(steps):
    places, inside = Places(GatewayLimits(**BOUNDS)), []
    for address, step in steps:
        if step == "enter":
            place = places.enter(address)
            place.on_evicted = lambda place=place: inside.remove(place)
            inside.append(place)
        elif inside and step == "leave":
            inside.pop(0).leave()
        elif inside:
            inside[-1].admit(step)
        nodes = [place for place in inside if place.node is not None]
        strangers = [place.address for place in inside if place.node is None]
        assert places.taken == len(inside) <= 9
        assert (len(strangers) <= 3, len(nodes) <= 6) == (True, True)
        assert max(map(strangers.count, strangers), default=0) <= 2


def test_strangers_must_leave_places_for_nodes():
    with pytest.raises(ConfigError) as error:
        parse_config(GatewayLimits, {"connections": 64}, "gateway")
    assert "`strangers` must be fewer than `connections`" in str(error.value.problems)
