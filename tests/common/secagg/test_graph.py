import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg.graph import neighbours, points


def names(count: int) -> list[str]:
    return [f"a{number:03}" for number in range(count)]


@settings(max_examples=40)
@given(data=st.data(), count=st.integers(3, 40), seed=st.text("0123456789abcdef", min_size=8, max_size=8))
def test_being_joined_is_mutual_and_each_site_has_k_neighbours(data, count, seed):
    degree = 2 * data.draw(st.integers(1, max(1, (count - 2) // 2)))
    roster = names(count)
    joined = {site: neighbours(site, roster, roster, degree, seed) for site in roster}
    for site, others in joined.items():
        assert len(others) == min(degree, count - 1)
        assert site not in others
        assert list(others) == sorted(others)
        assert all(site in joined[other] for other in others)


def test_the_ring_by_another_road():
    """Neighbours are those at most k/2 places away in the order of the hashes."""
    roster = names(11)
    texts = {name: json.dumps(["s", name], separators=(",", ":")) for name in roster}
    ring = sorted(roster, key=lambda name: hashlib.sha256(texts[name].encode()).hexdigest())
    for here, site in enumerate(ring):
        near = {other for there, other in enumerate(ring) if 0 < min((here - there) % 11, (there - here) % 11) <= 2}
        assert set(neighbours(site, roster, roster, 4, "s")) == near


def test_the_order_of_the_roster_does_not_matter():
    roster = names(20)
    assert neighbours("a003", roster, roster, 6, "s") == neighbours("a003", roster[::-1], set(roster), 6, "s")


def test_another_seed_is_another_ring():
    roster = names(40)
    assert len({neighbours("a003", roster, roster, 4, f"{seed}") for seed in range(20)}) == 20


def test_everybody_is_joined_at_the_full_degree():
    roster = names(5)
    assert neighbours("a001", roster, roster, 4, "s") == ("a000", "a002", "a003", "a004")


def test_those_that_are_absent_fall_out_and_nobody_takes_their_place():
    roster = names(20)
    whole = neighbours("a003", roster, roster, 6, "s")
    present = set(roster) - {whole[0], whole[3]}
    assert neighbours("a003", roster, present, 6, "s") == tuple(name for name in whole if name in present)


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_places_are_evenly_spread(degree):
    """Over 2,000 rings of 9 sites, each other site is a neighbour in k of 8: counted to five standard deviations."""
    roster = names(9)
    counts = dict.fromkeys(roster[1:], 0)
    for seed in range(2000):
        for other in neighbours(roster[0], roster, roster, degree, str(seed)):
            counts[other] += 1
    share = degree / 8
    spread = (2000 * share * (1 - share)) ** 0.5
    assert all(abs(count - 2000 * share) < 5 * spread for count in counts.values())


def test_points_are_numbered_by_name():
    assert points(["b", "a", "c"]) == {"a": 1, "b": 2, "c": 3}
