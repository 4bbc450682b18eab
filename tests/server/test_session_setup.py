"""Steps 1 to 4 with good sites, missing ones and bad ones."""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import IntegrityError
from common.identity import new_identity, sign
from common.messages import Refusal
from common.secagg.messages import KEY_PURPOSE, SessionInvite, SessionKeys, SessionRoster, SessionShares, join
from common.wire import decode, encode
from server.replies import Exchanges
from server.session_setup import open_session
from tests.masked_sites import Direct
from tests.secagg_play import SESSION, make_study

NAMES = ("a00", "a01", "a02", "a03")


@pytest.fixture
def study(tmp_path):
    """Four sites, threshold three, ten rounds in sessions of three."""
    return make_study(tmp_path, rounds=10, session_rounds=3)


def door(study, name, alter):
    """A site in set-up; `alter` may replace what it says by another message, bytes, or None for silence."""

    def answer(request: bytes) -> bytes:
        message = decode(request, SessionInvite, SessionRoster)
        site = study.sites[name]
        said = site.keys(message, 0) if isinstance(message, SessionInvite) else site.shares(message)
        said = alter(name, said)
        return said if isinstance(said, bytes) else encode(said)

    return answer


def opened(study, alter=lambda name, said: said, first_round=1, loses=lambda name, request: False):
    transport = Direct({name: door(study, name, alter) for name in NAMES}, loses)
    exchanges = Exchanges(transport, study.plan.digest, first_round)
    return open_session(study.plan, NAMES, SESSION, first_round, exchanges), exchanges


def test_with_everybody_there_the_session_has_everybodys_keys_and_shares(study):
    session, exchanges = opened(study)
    assert (session.id, session.rounds, session.cohort) == (SESSION, range(1, 4), NAMES)
    assert session.roster.sites == NAMES
    assert all(session.dealt[name].site == name for name in NAMES)
    assert (exchanges.faults, exchanges.refusals) == ({}, {})


@pytest.mark.parametrize(("first_round", "rounds"), [(1, 3), (7, 3), (8, 3), (9, 2), (10, 1)])
def test_a_session_has_the_plans_rounds_and_none_beyond_its_last(study, first_round, rounds):
    session, _ = opened(study, first_round=first_round)
    assert session.rounds == range(first_round, first_round + rounds)


def is_kind(request: bytes, kind: type) -> bool:
    try:
        decode(request, kind)
    except IntegrityError:
        return False
    return True


@pytest.mark.parametrize(("kind", "in_roster"), [(SessionInvite, 3), (SessionRoster, 4)])
def test_a_site_that_is_missing_is_not_in_the_cohort(study, kind, in_roster):
    session, _ = opened(study, loses=lambda name, request: name == "a01" and is_kind(request, kind))
    assert session.cohort == ("a00", "a02", "a03")
    assert len(session.roster.sites) == in_roster


@pytest.mark.parametrize("kinds", [(SessionInvite,) * 2, (SessionRoster,) * 2, (SessionInvite, SessionRoster)])
def test_below_the_threshold_there_is_no_session(study, kinds):
    lost = dict(zip(("a01", "a02"), kinds, strict=True))
    session, exchanges = opened(study, loses=lambda name, request: name in lost and is_kind(request, lost[name]))
    assert session is None
    # Sites that gave keys are not asked for shares when there are too few of them.
    assert exchanges._transport.exchanges == (1 if kinds == (SessionInvite,) * 2 else 2)


def resigned(keys: SessionKeys, identity) -> SessionKeys:
    return replace(keys, signature=join([sign(identity, KEY_PURPOSE, keys.signed_content())]))


def flipped(vector: np.ndarray) -> np.ndarray:
    changed = vector.copy()
    changed[40] ^= 1
    return changed


BAD_KEYS = {
    "unsigned change": ("bad-signature", lambda study, keys: replace(keys, keys=flipped(keys.keys))),
    "another signature": ("bad-signature", lambda study, keys: replace(keys, signature=flipped(keys.signature))),
    "another identity": ("bad-signature", lambda study, keys: resigned(keys, new_identity())),
    "too few keys": (
        "bad-signature",
        lambda study, keys: resigned(replace(keys, keys=keys.keys[:-64]), study.identities["a01"]),
    ),
    "another session": ("other-round", lambda study, keys: replace(keys, session="00" * 32)),
    "other rounds": ("other-round", lambda study, keys: replace(keys, first_round=2)),
    "more rounds": ("other-round", lambda study, keys: replace(keys, rounds=4)),
    "another plan": ("other-plan", lambda study, keys: replace(keys, plan_digest="00" * 32)),
    "another site's name": ("wrong-site", lambda study, keys: replace(keys, site="a00")),
    "noise": ("unreadable", lambda study, keys: b"noise"),
    "far too long": ("unreadable", lambda study, keys: replace(keys, keys=np.zeros(10**6, np.uint8))),
}


@pytest.mark.parametrize(("fault", "change"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_keys_leave_their_site_out_and_harm_nobody_else(study, fault, change):
    def alter(name, said):
        return change(study, said) if name == "a01" and isinstance(said, SessionKeys) else said

    session, exchanges = opened(study, alter)
    assert session.cohort == session.roster.sites == ("a00", "a02", "a03")
    assert exchanges.faults == {fault: 1}


BAD_SHARES = {
    "one recipient too few": (
        "wrong-shape",
        lambda shares: replace(shares, recipients=shares.recipients[1:]),
    ),
    "another recipient": (
        "wrong-shape",
        lambda shares: replace(shares, recipients=("a00", "a01", "a02")),
    ),
    "cut": ("wrong-shape", lambda shares: replace(shares, sealed=shares.sealed[:-1])),
    "longer": ("wrong-shape", lambda shares: replace(shares, sealed=np.append(shares.sealed, np.uint8([0])))),
    "another session": ("other-round", lambda shares: replace(shares, session="00" * 32)),
    "another plan": ("other-plan", lambda shares: replace(shares, plan_digest="00" * 32)),
    "noise": ("unreadable", lambda shares: b"noise"),
}


@pytest.mark.parametrize(("fault", "change"), BAD_SHARES.values(), ids=BAD_SHARES)
def test_bad_shares_leave_their_site_out_of_the_cohort(study, fault, change):
    def alter(name, said):
        return change(said) if name == "a01" and isinstance(said, SessionShares) else said

    session, exchanges = opened(study, alter)
    assert (session.cohort, session.roster.sites) == (("a00", "a02", "a03"), NAMES)
    assert exchanges.faults == {fault: 1}


def test_a_refusal_is_counted_by_its_code(study):
    def alter(name, said):
        return Refusal(study.plan.digest, 0, name, "other-session") if name == "a03" else said

    session, exchanges = opened(study, alter)
    assert session.cohort == NAMES[:3]
    assert exchanges.refusals == {"other-session": 1}
