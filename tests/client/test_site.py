"""A site with its real inbox, policy, ledger, audit log and base cache; only the model is made up.

That policy and ledger are asked before anything is done is in tests/privacy/test_site_asks_first.py.
"""

import errno
import gc
from dataclasses import replace

import numpy as np
import pytest

from client.base_cache import BaseCache
from common.audit_events import (
    MessageOut,
    MessageRefused,
    MessageRepeated,
    Refused,
    Reserved,
    RollbackDetected,
    RunEnded,
)
from common.envelope import open_envelope
from common.errors import ConfigError, DataError, IntegrityError, RollbackError, TryAgainError
from common.identity import new_identity
from common.messages import RoundReply
from common.plan import Plan
from common.secagg.messages import SessionInvite
from common.signed_plan import write_signed_plan
from common.study_messages import BaseChunk, BaseNeed, BaseQuery, PlanAnswer, PlanOffer, RunNoted, RunOver
from common.wire import encode
from tests.federation_play import DRAFT
from tests.site_play import Opener, chunks, code, hand_out, make_site_play, order, other_base, read_answer, ready

SECRET = "patient 4711"


@pytest.fixture
def play(tmp_path):
    play = make_site_play(tmp_path)
    yield play
    play.close()


@pytest.fixture
def opener(play):
    opener = Opener(play)
    play.site.open_node = opener
    return opener


@pytest.fixture
def signed(play):
    return play.federation.sign()


# --- the ordinary course ---------------------------------------------------------------------------------------------


def test_from_the_offer_to_the_end(play, opener, signed):
    assert play.offer(signed) == PlanAnswer(signed.digest, "a", "accepted", ())
    assert play.ask(BaseQuery(signed.digest)) == BaseNeed(signed.digest, "a", "lacking", 1, 1)
    assert opener.happened == []
    assert hand_out(play, signed).state == "complete"
    assert opener.happened == ["base", "records"]
    assert isinstance(play.ask(order(signed)), RoundReply)
    assert play.ask(RunOver(signed.digest, "finished")) == RunNoted(signed.digest, "a")
    assert opener.happened == ["base", "records"]
    assert [(event.plan, event.outcome) for event in play.told(RunEnded)] == [(signed.digest, "finished")]
    assert [event.plan for event in play.told(Reserved)] == [signed.digest]


def test_all_that_leaves_by_this_hand_is_in_the_audit_log_first(play, opener, signed):
    ready(play, signed)
    play.ask(RunOver(signed.digest, "finished"))
    assert [event.message for event in play.told(MessageOut)] == ["PlanAnswer", "BaseNeed", "BaseNeed", "RunNoted"]


def test_what_the_node_does_is_shown(play, opener, signed):
    shown = []
    play.site.working = lambda *about: shown.append(about)
    ready(play, signed)
    play.ask(order(signed, 1))
    assert shown == [(signed.digest, 1)]


def test_after_a_restart_the_node_is_made_ready_by_the_first_request(play, opener, signed):
    ready(play, signed)
    play.close()
    play.site.open_node = opener
    assert isinstance(play.ask(order(signed)), RoundReply)
    assert opener.happened == 2 * ["base", "records"]


def test_an_exact_repeat_gets_the_identical_bytes_and_no_work(play, opener, signed):
    ready(play, signed)
    request = play.request(order(signed))
    first = play.site.answer(request)
    before = len(play.told(MessageOut))
    opener.play.site._nodes[signed.digest].error = AssertionError("was asked again")
    assert play.site.answer(request) == first
    assert len(play.told(MessageOut)) == before
    assert [event.size_bytes for event in play.told(MessageRepeated)] == [len(first)]


# --- who may speak ---------------------------------------------------------------------------------------------------


def test_what_the_coordinator_did_not_sign_gets_no_answer(play, opener, signed):
    offer = PlanOffer(signed.digest, np.frombuffer(write_signed_plan(signed), np.uint8))
    for request in (b"", b"x" * 1000, encode(offer), play.seal(encode(offer), signed.digest)[:-1] + b"\0"):
        assert play.site.answer(request) is None
    assert [event.code for event in play.told(MessageRefused)] == 4 * ["not-signed"]
    assert play.told(MessageOut) == []


def test_another_key_is_not_the_coordinators(play, signed, monkeypatch):
    monkeypatch.setattr(type(play), "coordinator", property(lambda _: new_identity()))
    assert play.site.answer(play.request(BaseQuery(signed.digest))) is None


def test_a_request_of_64_mebibytes_is_answered_or_not_and_no_more(play, signed):
    assert play.site.answer(bytes(64 << 20)) is None
    assert code(read_answer(play.site.answer(play.seal(bytes((64 << 20) - 4096), signed.digest)))) == "malformed"
    assert play.offer(signed).state == "accepted"


@pytest.mark.parametrize(
    ("changes", "refused"), [({"recipient": "b"}, "misaddressed"), ({"federation": "0" * 64}, "misaddressed")]
)
def test_what_is_not_for_here_is_refused(play, signed, changes, refused):
    assert code(play.ask(BaseQuery(signed.digest), **changes)) == refused
    assert [event.code for event in play.told(MessageRefused)] == [refused]


def test_the_past_is_refused(play, signed):
    play.offer(signed)
    assert code(play.ask(BaseQuery(signed.digest), sequence=1)) == "past-sequence"


def test_forgotten_answers_stop_the_node_after_it_said_so(play, signed):
    play.offer(signed)
    assert play.site.fatal is None
    assert code(play.ask(BaseQuery(signed.digest), acknowledged=9)) == "rolled-back"
    assert isinstance(play.site.fatal, RollbackError)
    assert [event.what for event in play.told(RollbackDetected)] == ["inbox"]


# --- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"CLST", b"\0" * 100])
def test_a_body_that_cannot_be_read_is_refused(play, signed, body):
    assert code(read_answer(play.site.answer(play.seal(body, signed.digest)))) == "malformed"


def test_an_answer_is_no_request(play, signed):
    assert code(play.ask(RunNoted(signed.digest, "a"))) == "malformed"
    assert code(play.ask(RoundReply(signed.digest, 1, "a", np.zeros(3, np.float32)))) == "malformed"


def test_envelope_and_body_must_be_about_the_same(play, opener, signed):
    ready(play, signed)
    assert code(play.ask(order(signed, 1), round_number=2)) == "malformed"
    assert code(play.ask(BaseQuery(signed.digest), round_number=1)) == "malformed"
    assert code(play.ask(order(signed, 1), plan_digest="0" * 64)) == "other-plan"
    assert opener.happened == ["base", "records"]


@pytest.mark.parametrize(
    "message",
    [BaseQuery("0" * 64), BaseChunk("0" * 64, 1, 1, 1, np.zeros(1, np.uint8)), SessionInvite("0" * 64, "1" * 64, 1, 4)],
)
def test_a_plan_that_was_never_offered_is_refused(play, opener, message):
    assert code(play.ask(message)) == "other-plan"
    assert opener.happened == []


def test_the_end_of_a_run_that_never_was_is_noted_and_nothing_else(play):
    assert play.ask(RunOver("0" * 64, "failed")) == RunNoted("0" * 64, "a")
    assert play.told(RunEnded) == []


# --- offers ----------------------------------------------------------------------------------------------------------


def test_an_offer_that_is_no_plan_of_the_coordinator_is_malformed(play, signed):
    document = np.frombuffer(write_signed_plan(signed)[:-2], np.uint8)
    assert code(play.ask(PlanOffer(signed.digest, document))) == "malformed"
    other = play.sign(signed.plan, identity=new_identity())
    assert code(play.offer(other)) == "malformed"
    assert list(play.home.plans.iterdir()) == []


def test_an_offer_under_another_plans_name_is_refused_and_not_kept(play, signed):
    document = np.frombuffer(write_signed_plan(signed), np.uint8)
    assert code(play.ask(PlanOffer("0" * 64, document))) == "other-plan"
    assert list(play.home.plans.iterdir()) == []


def test_offers_that_wait_and_are_refused_say_so_in_codes(play):
    signed = play.federation.sign(approved=False)
    assert play.offer(signed) == PlanAnswer(signed.digest, "a", "waiting", ("not-approved",))
    assert play.told(Refused) == []
    plan = Plan.model_validate({**signed.plan.model_dump(), "rounds": 2001})
    refused = play.sign(plan)
    answer = play.offer(refused)
    assert (answer.state, "too-many-rounds" in answer.codes) == ("refused", True)
    assert [event.plan for event in play.told(Refused)] == [refused.digest]


def test_an_approval_that_was_changed_stops_the_node_and_is_not_the_plans_fault(play, signed):
    play.home.approval(signed.digest).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="plan approval"):
        play.offer(signed)


# --- the base --------------------------------------------------------------------------------------------------------


def test_a_chunk_of_an_impossible_length_is_malformed_and_the_node_goes_on(play, opener, signed):
    play.offer(signed)
    for chunk in (replace(next(chunks(play, signed)), chunks=2), replace(next(chunks(play, signed)), chunk_number=1)):
        bad = replace(chunk, content=np.zeros(5, np.uint8), chunks=2)
        assert code(play.ask(bad)) == "malformed"
    assert hand_out(play, signed).state == "complete"


def test_a_plan_whose_base_no_site_may_have_is_not_taken_in(play, opener, signed):
    evil = play.sign(other_base(signed.plan, **{"evil.py": "0" * 64}))
    assert play.offer(evil).state == "accepted"
    assert code(play.ask(BaseQuery(evil.digest))) == "not-ready"
    assert code(play.ask(order(evil))) == "not-ready"
    assert play.ask(RunOver(evil.digest, "failed")) == RunNoted(evil.digest, "a")


def test_a_local_base_that_leads_elsewhere_is_not_used_and_the_node_goes_on(play, opener, signed, monkeypatch):
    def unfit(_):
        raise IntegrityError("the index names a file that the plan does not")

    play.offer(signed)
    monkeypatch.setattr(BaseCache, "find", unfit)
    for message in (BaseQuery(signed.digest), next(chunks(play, signed)), order(signed)):
        assert code(play.ask(message)) == "not-ready"


def test_without_a_base_there_is_no_round(play, opener, signed):
    play.offer(signed)
    assert code(play.ask(order(signed))) == "not-ready"
    assert opener.happened == []


@pytest.mark.parametrize("restart", [False, True])
def test_half_a_base_goes_with_its_run(play, opener, signed, restart):
    play.offer(signed)
    assert play.ask(next(chunks(play, signed))).state == "lacking"
    assert len(list(play.home.bases.iterdir())) == 2
    if restart:
        play.close()
    play.ask(RunOver(signed.digest, "stopped"))
    assert list(play.home.bases.iterdir()) == []


def test_a_whole_base_stays_for_the_next_run(play, opener, signed):
    ready(play, signed)
    play.ask(RunOver(signed.digest, "finished"))
    (kept,) = play.home.bases.iterdir()
    assert kept.name == signed.plan.base.digest
    again = play.federation.sign({**DRAFT, "seed": 2})
    play.offer(again)
    assert play.ask(BaseQuery(again.digest)).state == "complete"


# --- one model at a time ---------------------------------------------------------------------------------------------


def test_two_runs_never_have_two_models_in_memory(play, opener, signed):
    gc.disable()
    try:
        other = play.federation.sign({**DRAFT, "seed": 2})
        for turn in range(2):
            for plan in (signed, other):
                play.offer(plan)
                hand_out(play, plan)
                assert isinstance(play.ask(order(plan)), RoundReply), turn
        assert opener.most_alive == 1
        play.ask(RunOver(other.digest, "finished"))
        assert not any(ref() for ref in opener.alive)
    finally:
        gc.enable()


def test_the_end_of_another_run_leaves_this_one_in_memory(play, opener, signed):
    ready(play, signed)
    other = play.federation.sign({**DRAFT, "seed": 2})
    play.offer(other)
    play.ask(RunOver(other.digest, "stopped"))
    play.ask(order(signed))
    assert opener.happened == ["base", "records"]
    assert play.told(RunEnded) == [], "a run that never began does not end"


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        DataError(f"the column is missing {SECRET}"),
        ConfigError("x"),
        IntegrityError("y"),
        MemoryError(SECRET),
        RuntimeError(SECRET),
        IndexError(SECRET),
        TypeError(SECRET),
        ValueError(SECRET),
    ],
)
def test_a_study_that_cannot_be_opened_is_refused_without_a_word_and_tried_again(play, opener, signed, error):
    opener.errors.append(error)
    play.offer(signed)
    first, second = chunks(play, signed)
    play.ask(first)
    answer = play.site.answer(play.request(second))
    assert code(read_answer(answer)) == "not-ready"
    assert SECRET.encode() not in bytes(open_envelope(answer, len(answer)).body)
    assert SECRET not in play.home.audit.read_text()
    assert isinstance(play.ask(order(signed)), RoundReply)
    assert len(play.told(Reserved)) == 1


def test_a_book_that_was_put_back_stops_the_node_after_it_said_so(play, opener, signed):
    opener.errors.append(RollbackError("an older copy was put back"))
    play.offer(signed)
    assert code(hand_out(play, signed)) == "rolled-back"
    assert isinstance(play.site.fatal, RollbackError)
    assert [event.what for event in play.told(RollbackDetected)] == ["run"]


def test_one_that_shows_in_the_middle_of_a_round_does_so_too(play, opener, signed):
    ready(play, signed)
    play.site._nodes[signed.digest].error = RollbackError("a later round was begun already")
    assert code(play.ask(order(signed))) == "rolled-back"
    assert isinstance(play.site.fatal, RollbackError)


def test_a_book_that_is_busy_answers_nothing_and_the_request_may_come_again(play, opener, signed):
    """An answer of `not-ready` would go on; and what the ledger has, the audit log must have before anything else."""
    opener.errors.append(TryAgainError("another process holds the log"))
    play.offer(signed)
    first, second = chunks(play, signed)
    play.ask(first)
    request = play.request(second)
    with pytest.raises(TryAgainError):
        play.site.answer(request)
    assert read_answer(play.site.answer(request)).state == "complete"


@pytest.mark.parametrize("error", [IntegrityError("the book is damaged"), OSError(errno.ENOSPC, "No space left")])
def test_damage_and_a_full_disk_answer_nothing_and_the_request_may_come_again(play, opener, signed, error):
    ready(play, signed)
    request = play.request(order(signed))
    node = play.site._nodes[signed.digest]
    node.error = error
    with pytest.raises(type(error)):
        play.site.answer(request)
    node.error = None
    assert isinstance(read_answer(play.site.answer(request)), RoundReply)


def test_a_site_releases_no_update_by_its_own_hand(play, signed):
    with pytest.raises(IntegrityError, match="must have 0 values"):
        play.site._outbox.release(RoundReply(signed.digest, 1, "a", np.zeros(3, np.float32)))
