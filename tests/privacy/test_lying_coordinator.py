"""A lying coordinator tries its lies on one site; all that it gets is a refusal. Without the check, the lie works."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import client.secagg
import common.secagg.roster
from client.secagg import SiteHalf
from common.identity import SIGNATURE_BYTES, new_identity, sign
from common.secagg import parameters
from common.secagg.fixed_point import decode
from common.secagg.keys import KEY_BYTES
from common.secagg.masking import add_masks, pairwise_seed, pairwise_sign
from common.secagg.messages import (
    CONSENT_PURPOSE,
    KEY_PURPOSE,
    MaskedOrder,
    SessionKeys,
    SessionRoster,
    consent_content,
    join,
)
from common.secagg.parameters import Neighbourhood
from common.secagg.roster import mask_key
from common.secagg.sealing import SEALED_BYTES
from common.secagg.shamir import SHARE_BYTES
from tests.secagg_play import make_study, random_inputs, start_round

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


# --- about keys ---


def signed(study, name: str, keys: np.ndarray, like: SessionRoster | SessionKeys, identity=None) -> SessionKeys:
    """Keys under a site's name, signed by that site's identity, or by another's."""
    scalars = (like.plan_digest, like.session, like.first_round, like.rounds, name)
    unsigned = SessionKeys(*scalars, keys, join([]))
    identity = identity or study.identities[name]
    return SessionKeys(*scalars, keys, join([sign(identity, KEY_PURPOSE, unsigned.signed_content())]))


def with_part(roster: SessionRoster, part: SessionKeys) -> SessionRoster:
    """The roster with one site's keys replaced, or added."""
    return SessionRoster.of((roster.parts() | {part.site: part}).values())


def lies_about_keys(study, roster: SessionRoster) -> dict[str, SessionRoster]:
    parts = roster.parts()
    mine, theirs, other = parts["a00"], parts["a01"], parts["a02"]
    zero = np.zeros(KEY_BYTES, np.uint8)
    noncanonical = join([(P + 9).to_bytes(KEY_BYTES, "little")])
    own_altered = np.concatenate([mine.keys[32:64], mine.keys[:32], mine.keys[64:]])
    high_bit = theirs.keys.copy()
    high_bit[KEY_BYTES - 1] |= 128
    stranger = new_identity()
    return {
        "swapped keys": with_part(with_part(roster, replace(theirs, site="a02")), replace(other, site="a01")),
        "wrong signature": with_part(roster, replace(theirs, signature=other.signature)),
        "key of the coordinator": with_part(roster, signed(study, "a01", theirs.keys, roster, stranger)),
        "somebody outside the roster": with_part(roster, signed(study, "z", theirs.keys, roster, stranger)),
        "repeated key": with_part(roster, signed(study, "a01", other.keys, roster)),
        "repeated key at another place": with_part(
            roster, signed(study, "a01", np.concatenate([other.keys[32:64], theirs.keys[32:]]), roster)
        ),
        "channel key of low order": with_part(
            roster, signed(study, "a01", np.concatenate([zero, theirs.keys[32:]]), roster)
        ),
        "mask key of low order": with_part(
            roster, signed(study, "a01", np.concatenate([theirs.keys[:32], zero, theirs.keys[64:]]), roster)
        ),
        "another spelling of a key": with_part(roster, signed(study, "a01", high_bit, roster)),
        "a number beyond the field": with_part(
            roster, signed(study, "a01", np.concatenate([noncanonical, theirs.keys[32:]]), roster)
        ),
        "own keys altered": with_part(roster, signed(study, VICTIM, own_altered, roster)),
        "own keys left out": SessionRoster.of([part for name, part in parts.items() if name != VICTIM]),
        "keys cut short": replace(roster, keys=roster.keys[:-1]),
        "signatures cut short": replace(roster, signatures=roster.signatures[:-1]),
    }


LIES = (
    "swapped keys",
    "wrong signature",
    "key of the coordinator",
    "somebody outside the roster",
    "repeated key",
    "repeated key at another place",
    "channel key of low order",
    "mask key of low order",
    "another spelling of a key",
    "a number beyond the field",
    "own keys altered",
    "own keys left out",
    "keys cut short",
    "signatures cut short",
)


@pytest.mark.parametrize("lie", LIES)
def test_a_roster_with_one_lie_is_refused_and_forgotten(study, lie):
    roster = study.roster()
    lies = lies_about_keys(study, roster)
    assert tuple(lies) == LIES
    assert refusal(study.sites[VICTIM].shares, lies[lie]) == "bad-keys"
    assert study.sites[VICTIM]._book.roster is None
    study.sites[VICTIM].shares(roster)  # the true one is still welcome


@pytest.mark.parametrize("lie", ["swapped keys", "wrong signature", "key of the coordinator"])
def test_planted_fault_without_signatures_the_lie_works(study, monkeypatch, lie):
    roster = study.roster()
    monkeypatch.setattr(common.secagg.roster, "is_signed_by", lambda *_: True)
    study.sites[VICTIM].shares(lies_about_keys(study, roster)[lie])


# --- about consents ---


def shown(game, consents: dict[str, bytes]):
    """The reveal request with these signatures."""
    signers = tuple(sorted(consents))
    signatures = join([consents[name] for name in signers])
    return replace(game.coordinator.reveal_request(VICTIM), signers=signers, signatures=signatures)


def forgeries(game) -> dict[str, dict[str, bytes]]:
    study, terms, survivors = game.study, game.terms[VICTIM], game.coordinator.survivors
    good = {name: game.consent_of(name).signature.tobytes() for name in survivors}
    two = {name: good[name] for name in ("a00", "a01")}

    def signature(name: str, order: MaskedOrder, sites=survivors, purpose=CONSENT_PURPOSE) -> bytes:
        context = study.sites[name].terms(order).context
        return sign(study.identities[name], purpose, consent_content(context, sites))

    return {
        "nobody's": {},
        "too few": two,
        "forged": two | {"a02": bytes(SIGNATURE_BYTES)},
        "one signature for two sites": two | {"a02": good["a01"]},
        "by somebody outside the cohort": two
        | {"z": sign(new_identity(), CONSENT_PURPOSE, consent_content(terms.context, survivors))},
        "for another model": two | {"a02": signature("a02", replace(game.order, weights=np.ones(3, "f4")))},
        "for another cohort": two | {"a02": signature("a02", replace(game.order, cohort=survivors))},
        "for another set": two | {"a02": signature("a02", game.order, study.plan.roster)},
        "for another purpose": two | {"a02": signature("a02", game.order, purpose=KEY_PURPOSE)},
    }


FORGERIES = (
    "nobody's",
    "too few",
    "forged",
    "one signature for two sites",
    "by somebody outside the cohort",
    "for another model",
    "for another cohort",
    "for another set",
    "for another purpose",
)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_without_enough_good_consents_nothing_is_revealed(game, forgery):
    made = forgeries(game)
    assert tuple(made) == FORGERIES
    assert refusal(game.reveal_of, VICTIM, shown(game, made[forgery])) == "too-few-consents"


def test_a_consent_that_is_shown_three_times_counts_once(game):
    signature = game.consent_of("a01").signature.tobytes()
    request = replace(game.coordinator.reveal_request(VICTIM), signers=("a01",) * 3, signatures=join([signature] * 3))
    assert refusal(game.reveal_of, VICTIM, request) == "too-few-consents"


def test_consents_under_another_roster_do_not_count(game, study):
    """The same sites in another session: other keys, other context."""
    roster = study.roster(session="ab" * 32)
    other = start_round(study, study.session(roster))
    other.mask(random_inputs(study.names[:3], 3, seed=1))
    stale = {name: game.coordinator._consents[name] for name in game.coordinator.survivors}
    for name in study.names[:3]:
        other.coordinator.agree(other.consent_of(name))
    assert refusal(other.reveal_of, VICTIM, shown(other, stale)) == "too-few-consents"
    other.reveal_of(VICTIM)


def test_signatures_of_another_length_are_refused(game):
    request = game.coordinator.reveal_request(VICTIM)
    short = replace(request, signatures=request.signatures[:-1])
    assert refusal(game.reveal_of, VICTIM, short) == "too-few-consents"


@pytest.mark.parametrize("forgery", ["forged", "one signature for two sites", "for another model", "for another set"])
def test_planted_fault_without_signatures_forged_consents_open_shares(game, monkeypatch, forgery):
    request = shown(game, forgeries(game)[forgery])
    monkeypatch.setattr(client.secagg, "is_signed_by", lambda *_: True)
    assert len(game.reveal_of(VICTIM, request).shares) == 4 * SHARE_BYTES


# --- about shares ---


def altered_shares(game, study) -> dict[str, object]:
    request, session = game.coordinator.reveal_request(VICTIM), game.session
    first = request.sealed.copy()
    first[5] ^= 1
    other = np.concatenate([session.sealed("a01", "a02", 1), request.sealed[SEALED_BYTES:]])
    swapped = np.concatenate([session.sealed(name, VICTIM, 1) for name in ("a02", "a01", "a03")])
    return {
        "tampered": replace(request, sealed=first),
        "for another recipient": replace(request, sealed=other),
        "of another dealer": replace(request, sealed=swapped),
        "cut short": replace(request, sealed=request.sealed[:-1]),
        "one left out": replace(request, dealers=request.dealers[:2], sealed=request.sealed[: 2 * SEALED_BYTES]),
        "one's own": replace(request, dealers=("a00", "a01", "a02")),
    }


ALTERED = ("tampered", "for another recipient", "of another dealer", "cut short", "one left out", "one's own")


@pytest.mark.parametrize("fault", ALTERED)
def test_altered_shares_are_refused(game, study, fault):
    made = altered_shares(game, study)
    assert tuple(made) == ALTERED
    assert refusal(game.reveal_of, VICTIM, made[fault]) == "bad-share"


def test_shares_of_another_round_are_refused(study):
    """Otherwise one round's consents could open two rounds' secrets."""
    session = study.session(study.roster(rounds=2))
    game = start_round(study, session, number=2)
    game.mask(random_inputs(study.names[:3], 3, seed=1))
    game.agree(study.names[:3])
    request = game.coordinator.reveal_request(VICTIM)
    earlier = np.concatenate([session.sealed(dealer, VICTIM, 1) for dealer in request.dealers])
    assert refusal(game.reveal_of, VICTIM, replace(request, sealed=earlier)) == "bad-share"
    game.reveal_of(VICTIM, request)


# --- about who is missing ---


def lay_bare(folder) -> tuple[np.ndarray, np.ndarray]:
    """Everybody answers, and the coordinator calls as many of one site's neighbours missing as the plan tolerates.

    Returns:
        What is left of that site's reply when all masks that the coordinator can open are off, and what it put in.
    """
    study = make_study(folder, sites=12, dropouts=5, colluders=0)
    session = study.session(study.roster())
    game, inputs = start_round(study, session), random_inputs(study.names, 3, seed=1)
    game.mask(inputs)
    reply = study.sites[VICTIM].mask(game.order, game.terms[VICTIM], inputs[VICTIM]).masked
    missing = session.neighbours[VICTIM][:5]
    lie = tuple(name for name in study.names if name not in missing)
    game.coordinator.restore(lie, join([game.coordinator._replied[name] for name in lie]), reply)
    game.agree(study.names)
    game.reveal(study.names)
    game.coordinator.restore((VICTIM,), np.zeros(64, np.uint8), reply)
    seeds = game.coordinator._self_mask(VICTIM)
    for name in missing:
        seeds += game.coordinator._pairwise_masks(name)
    return decode(add_masks(reply, seeds)), inputs[VICTIM]


def test_naming_a_sites_neighbours_missing_does_not_lay_it_bare(tmp_path):
    left, put_in = lay_bare(tmp_path)
    assert (left != put_in).all()


def test_planted_fault_with_no_more_neighbours_than_dropouts_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(parameters, "find_neighbourhood", lambda *_: Neighbourhood(degree=4, share_threshold=2))
    left, put_in = lay_bare(tmp_path)
    assert left.tolist() == put_in.tolist()


# --- about what the others were told ---


def two_contexts(folder, **terms) -> tuple[np.ndarray, np.ndarray]:
    """The victim is told a cohort without `gone`, everybody else the whole one; the victim is named a survivor.

    Returns:
        What is left of the victim's reply when all masks that the coordinator can open are off, and what it put in.
    """
    study = make_study(folder, **terms)
    session = study.session(study.roster())
    outside, colluder, *_ = others = [name for name in study.names if name != VICTIM]
    game, inputs = start_round(study, session), random_inputs(study.names, 3, seed=1)
    apart = replace(game.order, cohort=tuple(name for name in study.names if name != outside))
    bare = study.sites[VICTIM].mask(apart, study.sites[VICTIM].terms(apart), inputs[VICTIM])
    game.mask({name: inputs[name] for name in others})
    named = tuple(name for name in study.names if name != others[-1])
    known = game.coordinator._replied | {VICTIM: bare.signature.tobytes()}
    game.coordinator.restore(named, join([known[name] for name in named]), game.coordinator.masked_total)
    for name in others:
        game.coordinator.agree(game.consent_of(name))
    for name in others:
        game.coordinator.open(game.reveal_of(name))
    seeds = _opened_in(game, study, apart, others, colluder)
    return decode(add_masks(bare.masked, seeds)), inputs[VICTIM]


def _opened_in(game, study, apart, others, colluder) -> list[tuple[bytes, int]]:
    """The victim's masks in its own context, from what was revealed in the other one and what a colluder knows."""
    context = study.sites[VICTIM].terms(apart).context
    game.coordinator.context = context
    seeds = game.coordinator._self_mask(VICTIM)
    missing = X25519PrivateKey.from_private_bytes(game.coordinator._secret_of(others[-1], lambda _: True))
    told = study.sites[colluder]._view().secret.mask_key(1)
    published = mask_key(game.session.parts[VICTIM], 1)
    for name, key in ((others[-1], missing), (colluder, told)):
        seed = pairwise_seed(key, published, (VICTIM, name), context)
        seeds.append((seed, -pairwise_sign(VICTIM, name)))
    return seeds


def test_a_site_that_was_told_another_cohort_is_no_survivor(tmp_path):
    with pytest.raises(client.secagg.UnsafeRequestError, match="is for another context") as refused:
        two_contexts(tmp_path, sites=4, dropouts=1, colluders=1)
    assert refused.value.code == "other-context"


def test_planted_fault_without_the_survivors_signatures_its_numbers_are_bare(tmp_path, monkeypatch):
    monkeypatch.setattr(SiteHalf, "_check_replies", lambda *_: None)
    left, put_in = two_contexts(tmp_path, sites=4, dropouts=1, colluders=1)
    assert left.tolist() == put_in.tolist()
