"""What the coordinator checks, and that it gets a total by no other road than the protocol's."""

from dataclasses import replace

import numpy as np
import pytest

import server.secagg
from common.errors import ProtocolError
from common.identity import new_identity
from common.secagg import prg
from common.secagg.masking import add_masks
from common.secagg.messages import Consent, SessionShares, join
from common.secagg.sealing import SEALED_BYTES
from common.secagg.shamir import SHARE_BYTES
from server.secagg import CoordinatorRound, good_keys, good_shares, neighbours_in
from tests.secagg_play import make_study, random_inputs, start_round


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


@pytest.fixture
def game(study):
    """Three of four sites have answered; a03 is missing, and the three agree."""
    game = start_round(study, study.session(study.roster(rounds=2)))
    game.mask(random_inputs(study.names[:3], 3, seed=1))
    game.agree(study.names[:3])
    return game


# --- the session ---


def test_a_session_knows_rounds_cohort_and_neighbours(study):
    session = study.session(study.roster(rounds=2), without=("a03",))
    assert session.rounds == range(1, 3)
    assert session.cohort == ("a00", "a01", "a02")
    assert session.neighbours["a00"] == ("a01", "a02", "a03")
    assert session.neighbours_in_cohort("a00") == ("a01", "a02")
    assert session.digest == session.roster.digest
    assert session.points == {"a00": 1, "a01": 2, "a02": 3, "a03": 4}


def test_sealed_shares_are_found_by_dealer_recipient_and_round(study):
    """Each one opens at the recipient for that round."""
    session = study.session(study.roster(rounds=2))
    for dealer in ("a00", "a02"):
        for number in session.rounds:
            sealed = session.sealed(dealer, "a01", number).tobytes()
            study.sites["a01"]._view().opened(dealer, sealed, number)


def test_keys_that_every_site_would_refuse_are_left_out(study):
    part = study.roster().parts()["a01"]
    assert good_keys(part, study.plan)
    assert not good_keys(replace(part, signature=part.signature[::-1].copy()), study.plan)
    assert not good_keys(replace(part, site="stranger"), study.plan)


def test_shares_are_for_each_neighbour_and_round(study):
    roster = study.roster(rounds=2)
    recipients = neighbours_in(study.plan, roster)["a00"]
    shares = study.sites["a00"].shares(roster)
    assert good_shares(shares, roster, recipients)
    assert not good_shares(replace(shares, recipients=recipients[:2]), roster, recipients)
    assert not good_shares(replace(shares, sealed=shares.sealed[:-SEALED_BYTES]), roster, recipients)
    assert not good_shares(SessionShares(study.plan.digest, roster.session, "a00", (), join([])), roster, recipients)


# --- a round ---


def test_the_sum_of_the_survivors_comes_out(game):
    inputs = random_inputs(game.study.names[:3], 3, seed=1)
    game.reveal(game.study.names[:3])
    assert game.coordinator.total().tolist() == sum(inputs.values()).tolist()
    assert game.coordinator.total().tolist() == sum(inputs.values()).tolist(), "asking twice changes nothing"


def test_a_missing_site_may_help_to_open_the_sum(game):
    inputs = random_inputs(game.study.names[:3], 3, seed=1)
    game.reveal(("a00", "a02", "a03"))
    assert game.coordinator.total().tolist() == sum(inputs.values()).tolist()


def test_masks_between_two_missing_sites_are_in_no_sum(tmp_path):
    study = make_study(tmp_path, sites=5, dropouts=2, colluders=0)
    game = start_round(study, study.session(study.roster()))
    inputs = random_inputs(study.names[:3], 3, seed=1)
    game.mask(inputs)
    game.agree(study.names[:3])
    game.reveal(study.names[:3])
    assert game.coordinator.total().tolist() == sum(inputs.values()).tolist()


def test_a_sum_goes_on_from_where_it_was_saved(game):
    fresh = CoordinatorRound(game.session, game.order, "model")
    fresh.context = game.coordinator.context
    saved = game.coordinator.masked_total
    fresh.restore(game.coordinator.survivors, game.coordinator.signatures, saved)
    game.coordinator = fresh
    game.agree(game.study.names[:3])
    game.reveal(game.study.names[:3])
    expected = sum(random_inputs(game.study.names[:3], 3, seed=1).values())
    assert fresh.total().tolist() == expected.tolist()
    assert fresh.masked_total is not saved


def test_a_consent_is_the_sites_signature_over_this_round_and_set(game):
    good = game.consent_of("a01")
    assert game.coordinator.is_good(good)
    assert not game.coordinator.is_good(replace(good, site="a02"))
    assert not game.coordinator.is_good(replace(good, signature=good.signature[::-1].copy()))
    everybody = ("a00", "a01", "a02", "a03")
    game.coordinator.restore(everybody, np.zeros(4 * 64, np.uint8), game.coordinator.masked_total)
    assert not game.coordinator.is_good(good)


def test_a_consent_counts_once_a_site(game):
    assert game.coordinator.agreed == 3
    game.coordinator.agree(game.consent_of("a01"))
    assert game.coordinator.agreed == 3


def test_planted_fault_without_signatures_any_consent_is_good(game, monkeypatch):
    forged = Consent(game.study.plan.digest, game.session.id, 1, "a03", join([new_identity().sign(b"")]))
    assert not game.coordinator.is_good(forged)
    monkeypatch.setattr(server.secagg, "is_signed_by", lambda *_: True)
    assert game.coordinator.is_good(forged)


def test_a_reveal_has_a_share_for_each_owner(game):
    answer = game.reveal_of("a00")
    assert game.coordinator.fits(answer)
    assert not game.coordinator.fits(replace(answer, owners=answer.owners[:-1]))
    assert not game.coordinator.fits(replace(answer, owners=(*answer.owners[:-1], "a04")))
    assert not game.coordinator.fits(replace(answer, shares=answer.shares[:-1]))


# --- what cannot be opened ---


@pytest.mark.parametrize("count", [0, 1, 2])
def test_below_the_threshold_there_is_no_total(game, count):
    game.reveal(game.study.names[:count])
    assert not game.coordinator.enough_shares
    with pytest.raises(ProtocolError, match="does not give the secret"):
        game.coordinator.total()


@pytest.mark.parametrize(("owner", "name"), [(1, "a01"), (3, "a03")])
def test_a_wrong_share_of_either_secret_is_found(game, owner, name):
    """By the commitment to a seed, and by the public half of a key."""
    game.reveal(("a00", "a01"))
    answer = game.reveal_of("a02")
    shares = answer.shares.copy()
    shares[SHARE_BYTES * owner + 32] ^= 1
    game.coordinator.open(replace(answer, shares=shares))
    assert game.coordinator.enough_shares
    with pytest.raises(ProtocolError, match=f"revealed of {name} does not give the secret that it committed to"):
        game.coordinator.total()


def test_one_wrong_share_beyond_the_threshold_is_left_out(game, study):
    """Four holders, of which three are enough: a site that reveals wrongly cannot spoil the round."""
    game.reveal(("a00", "a01", "a03"))
    answer = game.reveal_of("a02")
    game.coordinator.open(replace(answer, shares=answer.shares ^ np.uint8(1)))
    expected = sum(random_inputs(study.names[:3], 3, seed=1).values())
    assert game.coordinator.total().tolist() == expected.tolist()


def test_one_sites_numbers_cannot_be_opened_with_what_opens_the_sum(game):
    """The coordinator has a01's reply apart from the sum, and all that was revealed: the pairwise masks stay on it."""
    game.reveal(game.study.names[:3])
    alone = game.study.sites["a01"].mask(game.order, game.terms["a01"], np.zeros(3, np.int64)).masked
    game.coordinator.restore(("a01",), np.zeros(64, np.uint8), alone)
    with pytest.raises(ProtocolError):  # shares of a00's mask key were never revealed: they are of its seed
        game.coordinator.total()


def test_a_late_reply_stays_masked(game):
    """The reply of a03 comes after the survivors were signed: its mask key is open, its self-mask seed is not."""
    game.reveal(game.study.names[:3])
    late = game.study.sites["a03"].mask(game.order, game.terms["a03"], np.zeros(3, np.int64)).masked
    open_masks = [(seed, -sign) for seed, sign in game.coordinator._pairwise_masks("a03")]
    own_seed, _ = game.study.sites["a03"]._view().seeds(1, game.order.cohort, game.terms["a03"].context)[0]
    assert add_masks(late, open_masks).tolist() == prg.mask(own_seed, 3).tolist()
    with pytest.raises(ProtocolError, match="revealed of a03"):
        game.coordinator._self_mask("a03")


def test_a_sites_numbers_are_not_kept(game):
    held = [value for value in vars(game.coordinator).values() if isinstance(value, np.ndarray)]
    assert len(held) == 1
