"""A coordinator that is enrolled, holds the real key, and asks for what the hospital did not agree to.

Whatever it tries, what leaves the site is of class public, field by field, and the ledger stays as it is.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from client.acceptance import Acceptance
from client.approvals import withdraw
from common.envelope import COORDINATOR, Envelope, open_envelope, seal
from common.identity import new_identity
from common.moments import current_moment
from common.plan import Plan
from common.privacy.mechanism import mechanism_of
from common.privacy.renyi_filter import RenyiFilter
from common.secagg.messages import RevealRequest, SessionInvite, SessionKeys, SurvivorSet
from common.signed_plan import sign_plan
from common.study_messages import BaseChunk, BaseNeed, BaseQuery, PlanAnswer
from common.wire import decode, encode, kind_of, subject
from tests.crash_play import Stage, make_stage
from tests.evil_coordinator import OTHER, SITE, Evil, code, evil_in, offer_of
from tests.kills import Kill, Moment
from tests.ledger_watch import Watch, body_of


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Stage:
    return make_stage(tmp_path_factory.mktemp("hostile"), tiny_base)


@pytest.fixture(scope="module")
def midway(stage: Stage) -> tuple[Path, Watch]:
    """Everything on disk after round 1, whose last answer the site has given; and its conversation."""
    with stage.lives([Kill(Moment(SITE, "Reveal sent", "after"))]) as lives:
        assert lives.live() is None
    kept = stage.kept.with_name("midway")
    stage.folder.rename(kept)
    return kept, lives.watch


@pytest.fixture
def evil(stage: Stage) -> Iterator[Evil]:
    """Before the first plan was offered; the one that everybody signed is approved."""
    with evil_in(stage, None) as evil:
        yield evil


@pytest.fixture
def running(stage: Stage, midway: tuple[Path, Watch]) -> Iterator[Evil]:
    """After round 1 of two."""
    with evil_in(stage, *midway) as evil:
        yield evil


# --- plans -----------------------------------------------------------------------------------------------------------

Change = Mapping[str, object]


def changed(plan: Plan, **changes: Change | object) -> Plan:
    values = plan.model_dump(mode="json")
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, Mapping) else value
    return Plan.model_validate(values)


PLANS: dict[str, tuple[Change, set[str]]] = {
    "more steps": ({"rounds": 3}, set()),
    "less noise": ({"privacy": {"noise_multiplier": 0.4}}, {"too-little-noise"}),
    "another base": ({"base": {"files": {"model.safetensors": OTHER}}}, set()),
    "other tensors": ({"adapter": {"targets": ("dense",)}}, set()),
    "all at once": ({"rounds": 2500, "privacy": {"delta": 1e-4}}, {"too-many-rounds", "delta-too-high"}),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_changed_plan_is_another_plan_that_nobody_approved(running: Evil, name: str) -> None:
    changes, codes = PLANS[name]
    plan = changed(running.plan, **changes)
    answer = running.offer(plan)
    assert isinstance(answer, PlanAnswer)
    assert answer.state in {"waiting", "refused"}
    assert {"not-approved", *codes} <= set(answer.codes)
    for message in (BaseQuery(plan.digest), running.invite(plan.digest), running.order(plan_digest=plan.digest)):
        assert code(running.say(message)) == "not-taking-part"


@pytest.mark.parametrize("name", ["less noise", "all at once"])
def test_a_person_who_approved_it_does_not_lift_the_limits(evil: Evil, name: str) -> None:
    plan = changed(evil.plan, **PLANS[name][0])
    answer = evil.offer(plan, approved=True)
    assert isinstance(answer, PlanAnswer)
    assert PLANS[name][1] <= set(answer.codes)
    assert code(evil.say(BaseQuery(plan.digest))) == "not-taking-part"


def test_an_older_signed_plan_has_expired(evil: Evil) -> None:
    plan, now = changed(evil.plan, seed=7), current_moment()
    answer = evil.offer(plan, approved=True, issued=now - timedelta(days=9), valid_until=now - timedelta(seconds=9))
    assert isinstance(answer, PlanAnswer)
    assert (answer.state, answer.codes) == ("refused", ("plan-expired",))
    assert code(evil.say(evil.invite(plan.digest))) == "not-taking-part"


def test_a_plan_for_another_federation_or_by_another_key_is_none(evil: Evil, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = changed(evil.plan, seed=7)
    assert code(evil.offer(plan, approved=True, federation=OTHER)) == "malformed"
    forged = sign_plan(plan, evil.federation, current_moment(), current_moment() + timedelta(days=1), new_identity())
    assert code(evil.say(offer_of(forged))) == "malformed"
    assert code(evil.say(evil.invite(plan.digest))) == "other-plan"


def test_an_offer_that_names_another_plan_than_it_holds_is_refused(evil: Evil) -> None:
    other = evil.sign(changed(evil.plan, rounds=9))
    assert code(evil.say(offer_of(other, digest=evil.plan.digest))) == "other-plan"
    assert code(evil.say(offer_of(evil.stage.signed, digest=other.digest))) == "other-plan"
    assert code(evil.say(evil.invite(other.digest))) == "other-plan"
    assert not evil.home.plan(other.digest).exists()


def test_orders_before_an_offer_are_of_no_plan(evil: Evil) -> None:
    for message in (BaseQuery(OTHER), evil.invite(OTHER), BaseChunk(OTHER, 1, 1, 1, np.zeros(9, np.uint8))):
        assert code(evil.say(message)) == "other-plan"


# --- the budget ------------------------------------------------------------------------------------------------------


def test_a_plan_over_budget_is_refused(stage: Stage) -> None:
    with evil_in(stage, None, budget=0.6) as evil:
        plan = changed(evil.plan, seed=7)
        answer = evil.offer(plan, approved=True)
        assert isinstance(answer, PlanAnswer)
        assert (answer.state, answer.codes) == ("refused", ("over-budget",))
        assert code(evil.say(BaseQuery(plan.digest))) == "not-taking-part"
        assert code(evil.say(evil.invite(plan.digest))) == "not-taking-part"


def test_two_plans_at_once_do_not_share_what_is_enough_for_one(stage: Stage) -> None:
    mechanism = mechanism_of(stage.signed.plan)
    filters = (RenyiFilter.with_most_room(round(1.3**power, 2), 1e-5) for power in range(20))
    enough = next(limit for limit in filters if limit.admits((), limit.cost(mechanism)))
    assert not enough.admits((enough.cost(mechanism),), enough.cost(mechanism))
    with evil_in(stage, None, budget=enough.epsilon) as evil:
        second = changed(evil.plan, seed=7)
        for answer in (evil.offer(evil.plan), evil.offer(second, approved=True)):
            assert isinstance(answer, PlanAnswer)
            assert answer.state == "accepted"
        need = evil.say(BaseQuery(evil.plan.digest))
        assert isinstance(need, BaseNeed)
        assert need.state == "complete"
        evil.paid = [evil.plan.digest]
        for message in (BaseQuery(second.digest), evil.invite(second.digest, 1)):
            assert code(evil.say(message)) == "not-taking-part"


# --- the base --------------------------------------------------------------------------------------------------------

SCRIPT = b"#!/usr/bin/env python\nraise SystemExit(9)\n"


@pytest.mark.parametrize("name", ["modeling.py", "../evil.safetensors", "pytorch_model.bin", "run.sh"])
def test_a_plan_whose_base_has_files_that_no_base_has_makes_nothing_ready(evil: Evil, name: str) -> None:
    digest = hashlib.sha256(SCRIPT).hexdigest()
    files = {**evil.plan.base.files, name: digest}
    plan = changed(evil.plan, base={"files": files})
    evil.offer(plan, approved=True)
    assert code(evil.say(BaseQuery(plan.digest))) in {"not-ready", "malformed"}
    chunk = BaseChunk(plan.digest, len(files), 1, 1, np.frombuffer(SCRIPT, dtype=np.uint8))
    assert code(evil.say(chunk)) in {"not-ready", "malformed"}
    assert not [path for path in evil.home.path.rglob("*") if path.name == Path(name).name]


def test_a_chunk_of_something_executable_is_never_taken_for_the_plans_file(evil: Evil) -> None:
    plan = changed(evil.plan, base={"files": {**evil.plan.base.files, "extra.safetensors": OTHER}})
    evil.offer(plan, approved=True)
    script = np.frombuffer(SCRIPT, dtype=np.uint8)
    states = []
    for _ in range(4):
        for number in range(1, len(plan.base.files) + 1):
            need = evil.say(BaseChunk(plan.digest, number, 1, 1, script))
            assert isinstance(need, BaseNeed)
            states.append(need.state)
    assert set(states) == {"lacking", "damaged"}
    kept = [path for path in evil.home.bases.rglob("*") if path.is_file()]
    assert all(SCRIPT not in path.read_bytes() for path in kept)
    assert code(evil.say(evil.invite(plan.digest, 1))) == "not-ready"


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_what_is_asked_of_the_running_plan_has_one_answer_a_round(running: Evil) -> None:
    other = running.order().weights + np.float32(1)
    for changes in ({"weights": other}, {"cohort": ("a", "b", "c")}):
        assert code(running.say(running.order(**changes))) == "conflicting-order"
    assert code(running.say(running.order(weights=other[1:]))) == "wrong-shape"
    assert code(running.say(running.order(basis=np.zeros(3, np.float32)))) == "wrong-shape"


def test_rounds_after_the_last_are_refused(running: Evil) -> None:
    assert code(running.say(running.order(round_number=3))) == "unexpected-round"
    assert code(running.say(running.invite(first_round=3))) == "other-session"
    assert code(running.say(SessionInvite(running.plan.digest, OTHER, 1, 1))) == "other-session"
    assert code(running.say(SessionInvite(running.plan.digest, OTHER, 2, 9))) == "other-session"


def test_another_survivor_set_is_refused(running: Evil) -> None:
    asked = {kind_of(body_of(request)): body_of(request) for request, _ in running.said}
    for kind in (SurvivorSet, RevealRequest):
        message = decode(asked[kind], kind)
        some = message.survivors[:3]
        fewer = replace(message, survivors=some, signatures=message.signatures[: 64 * 3])
        assert code(running.say(fewer)) == "conflicting-survivors"


# --- envelopes -------------------------------------------------------------------------------------------------------


def test_replayed_and_reordered_envelopes_are_past(running: Evil) -> None:
    for request, _ in running.said[:-1]:
        assert code(running.send(request)) == "past-sequence"
    last = open_envelope(running.said[-1][0], 1 << 20).header["sequence"]
    for sequence in (1, last - 1, last):
        assert code(running.say(running.order(), sequence=sequence)) == "past-sequence"


def test_the_last_request_again_gets_what_has_left_already(running: Evil) -> None:
    request, answer = running.said[-1]
    assert running.site.site.answer(request) == answer


def test_an_envelope_for_somebody_else_is_refused(running: Evil) -> None:
    keys = ({"sender_key": OTHER}, {"recipient_key": OTHER})
    for changes in ({"recipient": "b"}, {"federation": OTHER}, {"sender": "b"}, {"answers": OTHER}, *keys):
        assert code(running.say(running.invite(), **changes)) == "misaddressed"
    assert code(running.say(running.invite(), plan_digest=OTHER)) == "other-plan"


def test_an_envelope_by_another_key_gets_no_answer(running: Evil) -> None:
    frame = encode(running.invite())
    plan, number = subject(frame)
    envelope = Envelope(running.federation, plan, number, 999, 0, COORDINATOR, SITE, frame, **running.keys)
    assert running.send(seal(envelope, new_identity())) is None


# --- the hospital changes its mind -----------------------------------------------------------------------------------


def test_an_approval_that_was_withdrawn_stops_a_run_that_is_under_way(running: Evil) -> None:
    withdraw(running.home, running.plan.digest)
    for message in (running.invite(), running.order(), running.order(round_number=2)):
        assert code(running.say(message)) == "not-taking-part"


def test_a_policy_that_has_expired_stops_a_run(stage: Stage, midway: tuple[Path, Watch]) -> None:
    with evil_in(stage, *midway, policy="expires = 2020-01-01\n") as evil:
        assert code(evil.say(evil.invite())) == "not-taking-part"


def test_a_plan_whose_time_is_over_stops_and_a_clock_that_goes_back_does_not_help(
    running: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = iter([10, 0, 0])
    monkeypatch.setattr(
        running.site.ledger, "_clock", lambda: datetime.now(UTC) + timedelta(days=next(days, 0)), raising=True
    )
    for _ in range(3):
        assert code(running.say(running.invite())) == "not-taking-part"


def test_without_any_of_this_the_site_takes_part(stage: Stage, midway: tuple[Path, Watch]) -> None:
    """The control: what every test above asks for is answered where nothing is wrong with it."""
    with pytest.raises(AssertionError), evil_in(stage, *midway) as evil:
        assert isinstance(evil.say(evil.invite()), SessionKeys)


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_site_that_does_not_listen_to_its_policy_is_found(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Acceptance.verdict
    monkeypatch.setattr(Acceptance, "verdict", lambda *asked: replace(right(*asked), state="accepted"))
    with pytest.raises(AssertionError):
        take_more_than_was_approved(stage)


def take_more_than_was_approved(stage: Stage) -> None:
    with evil_in(stage, None) as evil:
        plan = changed(evil.plan, rounds=3)
        evil.offer(plan)
        evil.say(BaseQuery(plan.digest))
        evil.say(evil.invite(plan.digest, 1))


def test_a_plan_that_nobody_approved_is_not_taken(stage: Stage) -> None:
    """The control of the fault above."""
    take_more_than_was_approved(stage)
