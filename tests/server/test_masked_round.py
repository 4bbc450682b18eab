"""A round of masked numbers at the coordinator, with real sites behind a transport that interferes."""

import os
from dataclasses import replace

import numpy as np
import pytest

from common.errors import IntegrityError, TransportError
from common.secagg.fixed_point import update_step
from common.secagg.messages import (
    Consent,
    MaskedOrder,
    MaskedReply,
    Reveal,
    RevealRequest,
    SessionInvite,
    SessionKeys,
    SessionRoster,
    SessionShares,
    SurvivorSet,
)
from common.wire import decode, encode
from server.masked_round import SETUP_ATTEMPTS, MaskedGatherer
from server.session_file import PENDING_NAME, SESSION_NAME, load_session
from tests.masked_sites import DIMENSION, NOTHING, Direct, Hospitals, digit, make_hospitals, present

REQUESTS = (SessionInvite, SessionRoster, MaskedOrder, SurvivorSet, RevealRequest)
ANSWERS = (SessionKeys, SessionShares, MaskedReply, Consent, Reveal)
MODEL = np.float32([0.5, -1.5, 2.0])


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def hospitals(tmp_path) -> Hospitals:
    """Four sites of which three must be there; sessions of two rounds."""
    return make_hospitals(tmp_path, rounds=6, secure_aggregation={"session_rounds": 2})


class Meddler(Direct):
    """Keeps the kind of every request, loses requests by kind, and alters what sites answer."""

    def __init__(self, hospitals, lost=(), alter=lambda site, answer: answer):
        super().__init__(hospitals.doors())
        self.lost, self.alter, self.kinds = dict(lost), alter, []

    def exchange(self, orders):
        kinds = {site: type(decode(request, *REQUESTS)) for site, request in orders.items()}
        self.kinds += sorted({kind.__name__ for kind in kinds.values()})
        for site, request in orders.items():
            if site not in self.lost.get(kinds[site], ()):
                answer = self.alter(site, self.doors[site](request))
                if answer is not None:
                    yield site, answer


def altering(kind, change, sites=("s1", "s3")):
    """Give another answer in the place of some sites' answers of one kind; None for silence."""

    def alter(site: str, answer: bytes):
        try:
            message = decode(answer, kind)
        except IntegrityError:
            return answer
        changed = change(message) if site in sites else message
        return changed if changed is None or isinstance(changed, bytes) else encode(changed)

    return alter


def gather(hospitals, transport, number=1, model=MODEL):
    return hospitals.gatherer(transport).gather(number, model, NOTHING)


def sites_in(gathered, number=1, model=MODEL, sites=4) -> set[int]:
    """Who is in a decoded mean gradient, told from its digits."""
    order = MaskedOrder("0" * 64, "0" * 64, number, ("s0",), model, NOTHING)
    return present(np.rint(gathered.total * 2.0**16).astype(np.int64), order, sites)


# --- the ordinary course ---


def test_two_exchanges_open_a_session_and_three_make_a_round(hospitals):
    transport = Meddler(hospitals)
    gatherer = hospitals.gatherer(transport)
    first = gatherer.gather(1, MODEL, NOTHING)
    assert transport.kinds == [kind.__name__ for kind in REQUESTS]
    assert (sites_in(first), first.survivors, first.abort) == ({0, 1, 2, 3}, 4, "")
    assert (first.refusals, first.faults) == ({}, {})
    assert min(first.bytes_out, first.bytes_in) > 4 * 64
    second = gatherer.gather(2, MODEL, NOTHING)
    assert transport.kinds[5:] == ["MaskedOrder", "SurvivorSet", "RevealRequest"]
    assert second.bytes_out < first.bytes_out
    gatherer.gather(3, MODEL, NOTHING)
    assert transport.kinds[8:] == [kind.__name__ for kind in REQUESTS]


def test_in_mode_distributed_the_sum_comes_out_as_the_mean_gradient(hospitals):
    gathered = gather(hospitals, Meddler(hospitals))
    order = MaskedOrder("0" * 64, "0" * 64, 1, ("s0",), MODEL, NOTHING)
    total = sum(np.int64(digit(order)) * 32**place for place in range(4))
    assert gathered.total.tolist() == (total / 2**16).tolist()


def test_in_mode_per_site_it_comes_out_as_the_sum_of_updates(tmp_path):
    hospitals = make_hospitals(tmp_path, mode="per-site", local_steps=2)
    gathered = gather(hospitals, Meddler(hospitals))
    order = MaskedOrder("0" * 64, "0" * 64, 1, ("s0",), MODEL, NOTHING)
    total = sum(np.int64(digit(order)) * 32**place for place in range(4))
    assert gathered.total.tolist() == (total * update_step(4, 16.0)).tolist()


# --- sites that are missing ---


@pytest.mark.parametrize("kind", REQUESTS)
def test_one_site_may_be_missing_at_any_message(hospitals, kind):
    gathered = gather(hospitals, Meddler(hospitals, {kind: {"s1"}}))
    early = kind in {SessionInvite, SessionRoster, MaskedOrder}
    assert sites_in(gathered) == ({0, 2, 3} if early else {0, 1, 2, 3})
    assert (gathered.survivors, gathered.abort) == (3 if early else 4, "")


ABORTS = {
    SessionInvite: "no session",
    SessionRoster: "no session",
    MaskedOrder: "too few inputs",
    SurvivorSet: "too few consents",
    RevealRequest: "too few shares",
}


@pytest.mark.parametrize(("kind", "abort"), ABORTS.items())
def test_with_two_missing_nothing_comes_out_and_the_reason_is_given(hospitals, kind, abort):
    transport = Meddler(hospitals, {kind: {"s1", "s2"}})
    gathered = gather(hospitals, transport)
    assert (gathered.total, gathered.abort) == (None, abort)
    # Nobody is asked to reveal anything once too few are there.
    assert transport.kinds[-1] == kind.__name__
    assert load_session(hospitals.folder, hospitals.plan) is None


def test_a_set_up_without_everybody_is_tried_again_and_the_last_counts(hospitals):
    transport = Meddler(hospitals, {SessionInvite: {"s2"}})
    assert sites_in(gather(hospitals, transport)) == {0, 1, 3}
    assert transport.kinds.count("SessionInvite") == transport.kinds.count("SessionRoster") == SETUP_ATTEMPTS == 3


def test_a_site_that_comes_at_the_second_attempt_is_in_the_session(hospitals):
    transport = Meddler(hospitals, {SessionInvite: {"s2"}})
    exchange = transport.exchange

    def late(orders):
        if transport.kinds.count("SessionInvite") == 1:
            transport.lost = {}
        return exchange(orders)

    transport.exchange = late
    assert sites_in(gather(hospitals, transport)) == {0, 1, 2, 3}
    assert transport.kinds.count("SessionInvite") == 2


# --- answers that are wrong ---


def flipped(vector: np.ndarray, place: int) -> np.ndarray:
    changed = vector.copy()
    changed[place] ^= 1
    return changed


FAULTY = {
    "a reply of another length": (MaskedReply, lambda m: replace(m, masked=m.masked[:2]), "wrong-shape"),
    "a reply of another round": (MaskedReply, lambda m: replace(m, round_number=2), "other-round"),
    "a consent of another round": (Consent, lambda m: replace(m, round_number=2), "other-round"),
    "a consent of another session": (Consent, lambda m: replace(m, session="00" * 32), "other-round"),
    "an unsigned consent": (Consent, lambda m: replace(m, signature=flipped(m.signature, 3)), "bad-signature"),
    "a reveal of another round": (Reveal, lambda m: replace(m, round_number=2), "other-round"),
    "a reveal with a share too few": (Reveal, lambda m: replace(m, shares=m.shares[:-33]), "wrong-shape"),
    "a reveal of other owners": (Reveal, lambda m: replace(m, owners=("s0", "s1", "s2")), "wrong-shape"),
    "noise for a reveal": (Reveal, lambda m: b"noise", "unreadable"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "fault"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_answer_counts_as_none(hospitals, kind, change, fault):
    one = gather(hospitals, Meddler(hospitals, alter=altering(kind, change, sites=("s1",))))
    assert (one.abort, one.faults) == ("", {fault: 1})
    assert sites_in(one) == ({0, 2, 3} if kind is MaskedReply else {0, 1, 2, 3})


@pytest.mark.parametrize(("kind", "change", "fault"), FAULTY.values(), ids=FAULTY)
def test_two_faulty_answers_are_one_too_many(hospitals, kind, change, fault):
    two = gather(hospitals, Meddler(hospitals, alter=altering(kind, change)))
    reasons = {MaskedReply: "too few inputs", Consent: "too few consents", Reveal: "too few shares"}
    assert (two.total, two.abort, two.faults) == (None, reasons[kind], {fault: 2})


@pytest.mark.parametrize("place", [1, 40, 70, 130])
def test_shares_that_give_another_secret_give_no_sum(hospitals, place):
    """One bit of one share: the right secret or none comes out, never a sum with a mask left in it."""
    change = altering(Reveal, lambda m: replace(m, shares=flipped(m.shares, place)), sites=("s1",))
    gathered = gather(hospitals, Meddler(hospitals, alter=change))
    assert gathered.abort in {"", "bad shares"}
    assert gathered.total is None or sites_in(gathered) == {0, 1, 2, 3}


def test_the_same_bad_shares_from_those_who_are_needed_are_told_as_bad(hospitals):
    change = altering(Reveal, lambda m: replace(m, shares=flipped(m.shares, 5)), sites=("s0", "s1", "s2", "s3"))
    gathered = gather(hospitals, Meddler(hospitals, alter=change))
    assert (gathered.total, gathered.abort) == (None, "bad shares")


# --- after a kill ---


class KilledError(BaseException):
    """Stands for SIGKILL."""


def killed_at(kind):
    """A transport that dies when the first answer of a kind has come."""

    def die(_message):
        raise KilledError

    return altering(kind, die, sites=("s0", "s1", "s2", "s3"))


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_restarted_coordinator_goes_on_with_what_it_had(hospitals, kind):
    with pytest.raises(KilledError):
        gather(hospitals, Meddler(hospitals, alter=killed_at(kind)))
    session = load_session(hospitals.folder, hospitals.plan)
    assert (session is None) == (kind in {SessionKeys, SessionShares})
    transport = Meddler(hospitals)
    gathered = gather(hospitals, transport)
    assert sites_in(gathered) == {0, 1, 2, 3}
    assert ("SessionInvite" in transport.kinds) == (session is None)
    # Once the survivors were told, the sum stands: the model is not sent again.
    assert ("MaskedOrder" in transport.kinds) == (kind not in {Consent, Reveal})
    assert {trainer.trained.total() for trainer in hospitals.trainers.values()} == {1}


def test_survivors_who_were_told_stay_the_survivors_whoever_answers_later(hospitals):
    """s3 was missing when the survivors were told. It is there after the restart, and still not in the sum."""
    with pytest.raises(KilledError):
        gather(hospitals, Meddler(hospitals, {MaskedOrder: {"s3"}}, killed_at(Consent)))
    gathered = gather(hospitals, Meddler(hospitals))
    assert (sites_in(gathered), gathered.survivors) == ({0, 1, 2}, 3)
    assert gathered.refusals == {"unexpected-round": 1}  # s3 has no order to agree about


def test_a_round_given_up_twice_is_lost_and_the_next_one_is_not(hospitals):
    """Killed after it gave a round up and before that was saved: sites that were charged will not start it again."""
    assert gather(hospitals, Meddler(hospitals, {SurvivorSet: {"s1", "s2"}})).abort == "too few consents"
    again = gather(hospitals, Meddler(hospitals))
    assert (again.total, again.abort, again.refusals) == (None, "no session", {"other-session": 4})
    assert sites_in(gather(hospitals, Meddler(hospitals), number=2), number=2) == {0, 1, 2, 3}
    assert {hospitals.book(name).rounds_charged for name in hospitals.names} == {2}


def test_another_model_for_the_round_that_was_killed_gets_nothing(hospitals):
    with pytest.raises(KilledError):
        gather(hospitals, Meddler(hospitals, alter=killed_at(Consent)))
    gathered = gather(hospitals, Meddler(hospitals), model=MODEL + 1)
    assert (gathered.total, gathered.abort) == (None, "too few inputs")
    assert gathered.refusals == {"conflicting-order": 4}


@pytest.mark.parametrize("name", [SESSION_NAME, PENDING_NAME])
def test_a_damaged_file_is_one_sentence(hospitals, name):
    with pytest.raises(KilledError):
        gather(hospitals, Meddler(hospitals, alter=killed_at(Consent)))
    path = hospitals.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=f"{name} is damaged"):
        gather(hospitals, Meddler(hospitals))


def test_errors_of_the_transport_pass_through(hospitals):
    class Broken:
        def exchange(self, orders):
            raise TransportError("nobody is reached")

    with pytest.raises(TransportError, match="nobody"):
        gather(hospitals, Broken())


def test_what_is_kept_is_the_sum_and_no_sites_numbers(hospitals):
    seen = {}

    def keep(message):
        seen[message.site] = message.masked.tobytes()
        return message

    everybody = hospitals.names
    gather(hospitals, Meddler(hospitals, alter=altering(MaskedReply, keep, sites=everybody)))
    kept = b"".join(path.read_bytes() for path in hospitals.folder.iterdir() if path.is_file())
    assert len(seen) == 4
    assert all(len(numbers) == 4 * DIMENSION and numbers not in kept for numbers in seen.values())


def test_a_gatherer_needs_no_folder_of_its_own_before_the_first_session(tmp_path, hospitals):
    MaskedGatherer(hospitals.plan, hospitals.names, Meddler(hospitals), tmp_path)
    assert not (tmp_path / SESSION_NAME).exists()
