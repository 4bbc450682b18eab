"""The search for what can be read: it must find what there is, or every attack would look harmless."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.hospitals import HONEST, NAMES, Study
from simulations.attacks.whole_view import combinations_without_masks

SITES = range(4)
PAIRS = [(one, two) for one in SITES for two in SITES if one < two]


@st.composite
def masked_rows(draw):
    """Rows as masked replies have them: own masks and pairwise masks, some of them known and so gone."""
    own = draw(st.sets(st.sampled_from(SITES)))
    pairs = draw(st.sets(st.sampled_from(PAIRS)))
    rows = []
    for site in SITES:
        row = {("context", str(site)): 1} if site in own else {}
        row |= {("context", str(one), str(two)): 1 if site == one else -1 for one, two in pairs if site in (one, two)}
        rows.append(row)
    return rows


def cancels(rows, weights):
    masks = {mask for row in rows for mask in row}
    return all(sum(weight * row.get(mask, 0) for weight, row in zip(weights, rows, strict=True)) == 0 for mask in masks)


@settings(max_examples=100)
@given(masked_rows())
def test_every_combination_without_masks_is_found_and_no_other(rows):
    """Against all weights from -1 to 1: those that cancel are exactly what the basis spans."""
    basis = [[found.get(place, 0) for place in SITES] for found in combinations_without_masks(rows)]
    assert all(cancels(rows, weights) for weights in basis)
    rank = np.linalg.matrix_rank(np.array(basis)) if basis else 0
    assert rank == len(basis)
    for weights in product((-1, 0, 1), repeat=len(SITES)):
        spanned = np.linalg.matrix_rank(np.array([*basis, weights])) == rank
        assert spanned == cancels(rows, weights)


def test_by_hand():
    a, b = ("context", "east", "north"), ("context", "south")
    assert combinations_without_masks([{a: 1}, {a: -1}, {b: 1}]) == [{0: 1, 1: 1}]
    assert combinations_without_masks([{b: 1}, {b: 1}]) == [{0: -1, 1: 1}]
    assert combinations_without_masks([{}, {a: 1}]) == [{0: 1}]
    assert combinations_without_masks([]) == []


# --- on real messages ---


@pytest.fixture
def server(tmp_path):
    return HostileCoordinator(Study(tmp_path))


def collected(server):
    session = server.open_session()
    order = server.order(session)
    server.collect(session, order)
    return session, order


def test_before_the_reveal_nothing_can_be_read(server):
    collected(server)
    assert server.view.openings() == []


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_the_sum_can_be_read_once_the_threshold_of_shares_is_there(server, answers):
    """The colluder's share is one of three: two hospitals' reveals are enough, one is not."""
    session, order = collected(server)
    consents = server.consents(session, order, HONEST, NAMES)
    server.reveals(session, order, HONEST, consents, HONEST[:answers])
    assert [str(opening) for opening in server.view.openings()] == ["east + north + south"] * (answers >= 2)


@pytest.mark.parametrize("colluders", [("west",), ("south", "west"), ("north", "south", "west")])
def test_whose_secrets_must_be_told_before_one_hospitals_numbers_can_be_read(tmp_path, colluders):
    """Told by the threshold of sites, shares open a self mask; one fewer, and nothing comes to light unasked."""
    server = HostileCoordinator(Study(tmp_path), colluders)
    collected(server)
    assert [str(opening) for opening in server.view.openings()] == ["east"] * (len(colluders) == 3)


def test_shares_that_do_not_fit_are_no_secret(server):
    session, order = collected(server)
    consents = server.consents(session, order, HONEST, NAMES)
    server.reveals(session, order, HONEST, consents, HONEST)
    for shares in server.view._shares.values():
        for holder, share in shares.items():
            shares[holder] = bytes(len(share) - 1) + bytes([holder])
    assert server.view.openings() == []
