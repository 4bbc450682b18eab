from itertools import combinations, permutations
from math import comb, prod

import pytest

from common.secagg import parameters
from common.secagg.parameters import Neighbourhood, Parameters, find_neighbourhood

# n, d, c -> k and the share threshold, at t = n - d. docs/protocol.md shows the same table.
TABLE = [
    ((3, 0, 1), (2, 3)),
    ((4, 1, 1), (3, 3)),
    ((10, 2, 1), (9, 8)),
    ((33, 3, 2), (32, 30)),
    ((50, 5, 2), (32, 27)),
    ((100, 10, 5), (32, 22)),
    ((200, 20, 10), (32, 18)),
    ((500, 50, 25), (76, 52)),
    ((500, 5, 100), (66, 61)),
    ((512, 200, 0), (202, 91)),
]


@pytest.fixture
def few_bits(monkeypatch):
    """Bounds that small examples reach; what was found under the real ones must not be taken for theirs."""
    monkeypatch.setattr(parameters, "PRIVACY_BITS", 3)
    monkeypatch.setattr(parameters, "LIVENESS_BITS", 2)
    monkeypatch.setattr(parameters, "LEAST_DEGREE", 2)
    return find_neighbourhood.__wrapped__


@pytest.mark.parametrize(("given", "expected"), TABLE)
def test_neighbourhoods_of_the_table(given, expected):
    n, d, c = given
    assert Parameters(n, d, c, n - d).neighbourhood == Neighbourhood(*expected)


# --- the rules ---


def test_safe_parameters_have_no_problems():
    assert Parameters(sites=4, dropouts=1, colluders=1, threshold=3).problems() == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((2, 0, 0, 2), "at least 3 sites"),
        ((5, 3, 2, 4), "no honest noise among 5 sites"),
        ((5, 1, 0, 3), "must be from sites - tolerated_dropouts (4) to sites (5)"),
        ((5, 1, 0, 6), "must be from sites - tolerated_dropouts (4) to sites (5)"),
        ((6, 2, 2, 4), "must be above sites + tolerated_colluders (8)"),
    ],
)
def test_each_broken_rule_is_one_sentence(given, words):
    problems = Parameters(*given).problems()
    assert any(words in sentence for sentence in problems)


def test_all_broken_rules_are_told_at_once():
    assert len(Parameters(sites=3, dropouts=2, colluders=1, threshold=0).problems()) == 3
    assert len(Parameters(sites=2, dropouts=1, colluders=1, threshold=0).problems()) == 1, "the others follow from it"


@pytest.mark.parametrize("n", range(3, 8))
def test_the_rules_are_what_keeps_two_survivor_sets_from_being_signed(n):
    """By trying all pairs of sets: some honest site stands in both, whoever colludes, exactly when 2t > n + c."""
    for c in range(n):
        for t in range(1, n + 1):
            sets = [set(chosen) for chosen in combinations(range(n), t)]
            fewest_in_both = min(len(one & other) for one in sets for other in sets)
            broken = any("two survivor sets" in sentence for sentence in Parameters(n, n - t, c, t).problems())
            assert broken == (fewest_in_both <= c)


# --- the graph ---


def can_isolate(ring_missing_allowed: int, colluding: tuple[bool, ...], degree: int) -> bool:
    """By trying every choice of missing sites: whether the honest survivors fall into parts."""
    n, half = len(colluding), degree // 2
    honest = [place for place in range(n) if not colluding[place]]
    for missing in combinations(honest, ring_missing_allowed):
        left = set(honest) - set(missing)
        reached, edge = set(), {min(left)}
        while edge:
            reached |= edge
            edge = {
                place for place in left - reached if any(min((place - r) % n, (r - place) % n) <= half for r in edge)
            }
        if reached != left:
            return True
    return False


@pytest.mark.parametrize(("n", "d", "c", "degree"), [(9, 3, 1, 4), (9, 2, 2, 4), (10, 4, 0, 4), (8, 1, 2, 4)])
def test_a_graph_is_cut_no_more_often_than_the_bound_says(n, d, c, degree):
    """All placements of c colluders on the ring, and the worst choice of d missing sites for each."""
    places = list(combinations(range(n), c))
    cut = sum(can_isolate(d, tuple(place in chosen for place in range(n)), degree) for chosen in places)
    ways, all_ways = parameters._tail(n, c, degree, max(0, degree - d))
    assert cut / len(places) <= comb(n, 2) * ways / all_ways


def test_the_coordinator_cannot_cut_the_graph_by_its_choice_of_missing_sites(monkeypatch):
    """A site falls alone when its k neighbours are called missing, so that k <= d is never safe; at k > d + c nobody
    does. An earlier bound took drop-outs for accidents: at n = 512, d = 200 it gave k = 120."""
    monkeypatch.setattr(parameters, "LEAST_DEGREE", 2)
    for n in range(6, 13):
        for d in range((n - 1) // 2):
            degree = find_neighbourhood.__wrapped__(n, d, 0, n - d).degree
            assert degree > d
            assert not can_isolate(d, (False,) * n, degree)
            if d >= 2:
                assert can_isolate(d, (False,) * n, d - d % 2), "one that is too small is cut: this test can fail"


@pytest.mark.parametrize(("n", "d", "c"), [(400, 100, 20), (512, 200, 0), (500, 50, 25), (512, 250, 10)])
def test_the_degree_is_above_the_dropouts_in_large_studies_too(n, d, c):
    assert Parameters(n, d, c, n - d).neighbourhood.degree > d


@pytest.mark.parametrize(("n", "d", "c"), [(12, 1, 0), (12, 3, 0), (12, 1, 3), (16, 2, 3), (20, 3, 4)])
def test_fewer_bits_give_the_smallest_degree_that_meets_them(few_bits, n, d, c):
    """Every smaller degree breaks one of the three bounds, computed here by another formula."""
    found = few_bits(n, d, c, n - d)
    for degree in range(2, found.degree, 2):
        cut = comb(n, 2) * tail_by_draws(n, c, degree, degree - d) > 2**-3
        assert cut or not any(safe_here(n, d, c, degree, threshold) for threshold in range(2, degree + 1))
    if found.degree < n - 1:
        assert comb(n, 2) * tail_by_draws(n, c, found.degree, found.degree - d) <= 2**-3
        assert safe_here(n, d, c, found.degree, found.share_threshold)
        higher = range(found.share_threshold + 1, found.degree + 1)
        assert not any(safe_here(n, d, c, found.degree, threshold) for threshold in higher)


def safe_here(n: int, d: int, c: int, degree: int, threshold: int) -> bool:
    opened = n * tail_by_draws(n - 1, c, degree, threshold)
    lost = n * tail_by_draws(n - 1, d, degree, degree - threshold + 1)
    return opened <= 2**-3 and lost <= 2**-2


def tail_by_draws(population: int, marked: int, drawn: int, least: int) -> float:
    """The hypergeometric tail, one draw after the other without replacement: no binomials but the order of hits."""
    return sum(
        comb(drawn, hits)
        * prod((marked - i) / (population - i) for i in range(hits))
        * prod((population - marked - i) / (population - hits - i) for i in range(drawn - hits))
        for hits in range(max(0, least), min(drawn, marked) + 1)
    )


def test_the_tail_is_the_share_of_orders_in_which_it_happens():
    """7 sites of which 3 are marked, 4 drawn: counted over all 5,040 orders."""
    orders = list(permutations((1, 1, 1, 0, 0, 0, 0)))
    for least in range(5):
        counted = sum(sum(order[:4]) >= least for order in orders) / len(orders)
        ways, all_ways = parameters._tail(7, 3, 4, least)
        assert ways / all_ways == pytest.approx(counted, abs=1e-12)
        assert tail_by_draws(7, 3, 4, least) == pytest.approx(counted, abs=1e-12)
