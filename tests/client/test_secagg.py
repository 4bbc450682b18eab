"""What one site checks, step by step, and what it gives away."""

from dataclasses import replace

import numpy as np
import pytest

from client.secagg import SiteHalf, TooFewSitesAgreeError, UnsafeRequestError
from common.errors import IntegrityError
from common.identity import new_identity
from common.secagg.messages import (
    MaskedOrder,
    SessionRoster,
)
from common.secagg.sealing import SEALED_BYTES
from common.secagg.shamir import SHARE_BYTES
from tests.secagg_play import SESSION, make_site, make_study, random_inputs, start_round

VICTIM = "a00"
P = 2**255 - 19


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


@pytest.fixture
def game(study):
    """Three of four sites have answered; a03 is missing, and the three agree."""
    session = study.session(study.roster())
    game = start_round(study, session)
    game.mask(random_inputs(study.names[:3], 3, seed=1))
    game.agree(study.names[:3])
    return game


def refusal(call, *given) -> str:
    """The code with which a request is refused; any other error, and any answer, fails the test."""
    with pytest.raises(SiteHalf.REFUSALS) as caught:
        call(*given)
    return caught.value.code


def test_a_site_takes_part_only_under_the_key_that_the_plan_names(study):
    with pytest.raises(IntegrityError, match="a00"):
        SiteHalf(VICTIM, study.plan, new_identity(), study.sites[VICTIM]._book)
    with pytest.raises(IntegrityError, match="stranger"):
        SiteHalf("stranger", study.plan, study.identities[VICTIM], study.sites[VICTIM]._book)


# --- steps 1 and 2: the invite ---


@pytest.mark.parametrize(
    ("first_round", "rounds", "last_round"), [(1, 1, 1), (2, 1, 2), (3, 1, 0), (1, 33, 0)], ids=str
)
def test_a_session_is_for_rounds_to_come(study, first_round, rounds, last_round):
    """The plan has two rounds and sessions of at most 32."""
    invite = study.invite(rounds, first_round=first_round)
    assert refusal(study.sites[VICTIM].keys, invite, last_round) == "other-session"
    assert study.sites[VICTIM]._book.session == ""


def test_a_running_session_does_not_change_its_rounds(study):
    study.sites[VICTIM].keys(study.invite(rounds=2), 0)
    assert refusal(study.sites[VICTIM].keys, study.invite(rounds=1), 0) == "other-session"


def test_the_same_invite_gives_the_same_keys_also_after_a_kill(study, tmp_path):
    site = make_site(study, VICTIM, tmp_path)
    first = site.keys(study.invite(), 0)
    again = make_site(study, VICTIM, tmp_path).keys(study.invite(), 1)
    assert first.keys.tobytes() == again.keys.tobytes()
    assert first.signature.tobytes() == again.signature.tobytes()


def test_another_session_has_other_keys(study):
    site = study.sites[VICTIM]
    first, second = site.keys(study.invite(), 0), site.keys(study.invite(session="ab" * 32), 0)
    third = site.keys(study.invite(), 0)
    assert len({keys.keys.tobytes() for keys in (first, second, third)}) == 3, "a session that was left is forgotten"


# --- steps 3 and 4: the roster; the lies told there are in tests/privacy/test_lying_coordinator.py ---


def test_a_roster_below_the_threshold_is_refused(study):
    assert refusal(study.sites[VICTIM].shares, study.roster(without=("a02", "a03"))) == "bad-cohort"
    assert study.sites[VICTIM]._book.roster is None


def test_the_sites_own_minimum_wins_over_the_plan(study, tmp_path):
    site = make_site(study, VICTIM, tmp_path, own_minimum=4)
    study.sites[VICTIM] = site
    assert refusal(site.shares, study.roster(without=("a03",))) == "bad-cohort"
    site.shares(study.roster())


def test_a_lower_minimum_of_the_site_changes_nothing(study, tmp_path):
    study.sites[VICTIM] = make_site(study, VICTIM, tmp_path, own_minimum=1)
    assert refusal(study.sites[VICTIM].shares, study.roster(without=("a02", "a03"))) == "bad-cohort"


def test_a_roster_of_a_session_that_was_not_begun_is_refused(study):
    roster = study.roster()
    assert refusal(study.sites[VICTIM].shares, replace(roster, session="ab" * 32)) == "other-session"
    assert refusal(study.sites[VICTIM].shares, replace(roster, first_round=2)) == "other-session"


def test_a_session_has_one_roster(study):
    roster = study.roster()
    first = study.sites[VICTIM].shares(roster)
    smaller = SessionRoster.of(part for name, part in roster.parts().items() if name != "a03")
    assert refusal(study.sites[VICTIM].shares, smaller) == "bad-keys"
    assert study.sites[VICTIM].shares(roster).sealed.tobytes() == first.sealed.tobytes()


def test_the_same_roster_gives_the_same_shares_after_a_kill(study, tmp_path):
    study.sites[VICTIM] = make_site(study, VICTIM, tmp_path)
    roster = study.roster(rounds=2)
    first = study.sites[VICTIM].shares(roster)
    again = make_site(study, VICTIM, tmp_path).shares(roster)
    assert first.sealed.tobytes() == again.sealed.tobytes()
    assert len(first.sealed) == 3 * 2 * SEALED_BYTES


# --- step 5: the order ---


def test_nothing_is_done_before_a_session(study):
    order = MaskedOrder(study.plan.digest, SESSION, 1, ("a00", "a01", "a02"), np.zeros(3, "f4"), np.zeros(0, "f4"))
    assert refusal(study.sites[VICTIM].terms, order) == "other-session"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"session": "ab" * 32}, "other-session"),
        ({"round_number": 2}, "other-session"),
        ({"cohort": ("a00", "a01", "a02", "z")}, "bad-cohort"),
        ({"cohort": ("a01", "a02", "a03")}, "bad-cohort"),
        ({"cohort": ("a00",)}, "bad-cohort"),
        ({"cohort": ("a00", "a01")}, "bad-cohort"),
        ({"cohort": ("a00", "a00", "a01", "a01")}, "bad-cohort"),
    ],
    ids=str,
)
def test_an_order_for_others_or_for_too_few_is_refused(game, change, code):
    assert refusal(game.study.sites[VICTIM].terms, replace(game.order, **change)) == code


def test_a_cohort_may_lack_as_many_as_the_plan_tolerates(game):
    terms = game.study.sites[VICTIM].terms(replace(game.order, cohort=("a00", "a01", "a02")))
    assert terms.cohort == ("a00", "a01", "a02")
    assert terms.context != game.terms[VICTIM].context


def test_the_same_input_gives_the_same_masked_numbers(game):
    site, values = game.study.sites[VICTIM], np.int64([1, 2, 3])
    one, two = (site.mask(game.order, game.terms[VICTIM], values).masked for _ in range(2))
    assert one.tolist() == two.tolist()


def test_another_model_or_cohort_gives_unrelated_masks(game):
    """Sites that were told different models cannot be added up: the coordinator sees noise."""
    site, zeros = game.study.sites[VICTIM], np.zeros(3, np.int64)
    orders = [
        game.order,
        replace(game.order, weights=np.float32([1, 0, 0])),
        replace(game.order, basis=np.float32([0])),
        replace(game.order, cohort=game.order.cohort[:3]),
    ]
    masks = {site.mask(order, site.terms(order), zeros).masked.tobytes() for order in orders}
    assert len(masks) == len(orders)


# --- steps 7 and 8: the survivors ---


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"session": "ab" * 32}, "other-session"),
        ({"round_number": 2}, "other-session"),
        ({"survivors": ("a00", "a01", "z")}, "bad-cohort"),
        ({"survivors": ("a00",)}, "bad-cohort"),
        ({"survivors": ("a00", "a01")}, "bad-cohort"),
        ({"survivors": ("a00", "a00", "a01", "a01")}, "bad-cohort"),
    ],
    ids=str,
)
def test_survivors_that_are_others_or_too_few_are_refused(game, change, code):
    assert refusal(game.consent_of, VICTIM, replace(game.coordinator.survivor_set(), **change)) == code
    assert refusal(game.reveal_of, VICTIM, replace(game.coordinator.reveal_request(VICTIM), **change)) == code


def test_survivors_outside_a_smaller_cohort_are_refused(game):
    game.terms[VICTIM] = replace(game.terms[VICTIM], cohort=("a00", "a01", "a03"))
    assert refusal(game.consent_of, VICTIM) == "bad-cohort"


# --- steps 9 and 10: the reveal; the lies told there are in tests/privacy/test_lying_coordinator.py ---


def test_one_share_for_each_neighbour_and_never_both(game):
    """Of a survivor the self-mask seed's, of the missing site the mask key's."""
    view = game.study.sites[VICTIM]._view()
    answer = game.reveal_of(VICTIM)
    assert answer.owners == ("a00", "a01", "a02", "a03")
    for place, owner in enumerate(answer.owners):
        pair = view.own_pair(1) if owner == VICTIM else view.opened(owner, game.session.sealed(owner, VICTIM, 1), 1)
        given = answer.shares[SHARE_BYTES * place : SHARE_BYTES * (place + 1)].tobytes()
        assert given == (pair.mask_key if owner == "a03" else pair.self_seed)


def test_a_missing_site_reveals_like_the_others(game):
    assert game.reveal_of("a03").owners == ("a00", "a01", "a02", "a03")


def test_refusals_are_told_apart_by_exit_code():
    assert UnsafeRequestError("bad-keys", "x").exit_code == 13
    assert TooFewSitesAgreeError("bad-cohort", "x").exit_code == 15
