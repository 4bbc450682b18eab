from itertools import combinations

import numpy as np
import pytest

from client.session_view import SessionView
from common.errors import ProtocolError
from common.secagg import parameters
from common.secagg.keys import public_bytes, seed_commitment
from common.secagg.masking import add_masks
from common.secagg.roster import commitment, mask_key
from common.secagg.sealing import SEALED_BYTES
from common.secagg.shamir import recover
from tests.secagg_play import make_study

CONTEXT = "ab" * 32


def views(folder, sites: int, without=(), **terms) -> dict[str, SessionView]:
    study = make_study(folder, sites, **terms)
    roster = study.roster(rounds=2, without=without)
    secrets = {name: study.sites[name]._book.secret for name in roster.sites}
    return {name: SessionView.of(name, study.plan, secret, roster) for name, secret in secrets.items()}


@pytest.fixture
def four(tmp_path):
    return views(tmp_path, 4)


@pytest.fixture
def ring(tmp_path, monkeypatch):
    """Fourteen sites with four neighbours each, of which one has no keys in the session."""
    monkeypatch.setattr(parameters, "find_neighbourhood", lambda *_: parameters.Neighbourhood(4, 3))
    return views(tmp_path, 14, without=("a03",))


def dealt(all_views: dict[str, SessionView], dealer: str, holder: str, number: int) -> bytes:
    view = all_views[dealer]
    place = view.neighbours.index(holder) * len(view.rounds) + number - view.rounds[0]
    return view.sealed()[SEALED_BYTES * place : SEALED_BYTES * (place + 1)]


def test_a_view_knows_its_session(four):
    view = four["a00"]
    assert view.rounds == range(1, 3)
    assert view.digest == view.roster.digest
    assert view.neighbours == ("a01", "a02", "a03")
    assert view.neighbours_in(("a00", "a02", "a03")) == ("a02", "a03")
    assert view.points == {"a00": 1, "a01": 2, "a02": 3, "a03": 4}
    assert "secret" not in repr(view)


def test_few_neighbours_and_absent_ones_keep_their_point(ring):
    assert max(len(view.neighbours) for view in ring.values()) == 4
    assert sum(len(view.neighbours) for view in ring.values()) == 4 * 14 - 8
    assert ring["a00"].points["a04"] == 5


@pytest.mark.parametrize("number", [1, 2])
def test_masks_of_everybody_leave_the_self_masks(ring, number):
    """Pairwise masks cancel on the ring with a site missing, and each pair's seed is used at its two ends."""
    cohort = tuple(ring)
    seeds = {name: view.seeds(number, cohort, CONTEXT) for name, view in ring.items()}
    masked = sum(add_masks(np.zeros(5, np.uint32), own) for own in seeds.values())
    alone = sum(add_masks(np.zeros(5, np.uint32), own[:1]) for own in seeds.values())
    assert np.asarray(masked, np.uint32).tolist() == np.asarray(alone, np.uint32).tolist()
    signs: dict[bytes, list[int]] = {}
    for own in seeds.values():
        for seed, sign in own[1:]:
            signs.setdefault(seed, []).append(sign)
    assert all(sorted(both) == [-1, 1] for both in signs.values())


def test_a_smaller_cohort_has_fewer_masks(four):
    whole, fewer = (four["a00"].seeds(1, cohort, CONTEXT) for cohort in (tuple(four), ("a00", "a01", "a02")))
    assert len(whole) == 4
    assert fewer == whole[:3]


@pytest.mark.parametrize("number", [1, 2])
def test_any_threshold_of_holders_recovers_what_was_dealt(four, number):
    """The dealer's own share counts like the others."""
    owner = four["a01"]
    pairs = {owner.points["a01"]: owner.own_pair(number)}
    for holder in owner.neighbours:
        pairs[owner.points[holder]] = four[holder].opened("a01", dealt(four, "a01", holder, number), number)
    for chosen in combinations(pairs, owner.share_threshold):
        secret = recover({point: pairs[point].mask_key for point in chosen}, owner.share_threshold)
        seed = recover({point: pairs[point].self_seed for point in chosen}, owner.share_threshold)
        assert secret == owner.secret.mask_key_bytes(number)
        assert public_bytes(owner.secret.mask_key(number)) == mask_key(owner.parts["a01"], number)
        assert seed_commitment(seed) == commitment(owner.parts["a01"], number)


def test_the_two_secrets_and_the_rounds_have_polynomials_of_their_own(four):
    pairs = [four["a01"].own_pair(number) for number in (1, 2)]
    assert len({share for pair in pairs for share in (pair.mask_key, pair.self_seed)}) == 4
    differences = {int.from_bytes(pair.mask_key, "big") - int.from_bytes(pair.self_seed, "big") for pair in pairs}
    assert len(differences) == 2


def test_sealed_shares_are_for_each_neighbour_and_round(four):
    assert len(four["a00"].sealed()) == 3 * 2 * SEALED_BYTES
    assert four["a00"].sealed() == four["a00"].sealed()


@pytest.mark.parametrize(("holder", "number"), [("a02", 1), ("a01", 2)])
def test_a_share_opens_at_its_holder_and_in_its_round_only(four, holder, number):
    share = dealt(four, "a00", "a01", 1)
    four["a01"].opened("a00", share, 1)
    with pytest.raises(ProtocolError, match="sealed share"):
        four[holder].opened("a00", share, number)
