import json
from datetime import timedelta
from typing import get_args

import pytest

import client.verdict
from client.acceptance import NotTakingPartError, checked_plan, keep_plan
from client.approvals import approve, withdraw
from common.audit import AuditLog
from common.audit_events import PlanSeen, Refused, Reserved, Started
from common.errors import BudgetError, IntegrityError, RefusedError, TryAgainError
from common.identity import new_identity
from common.key_files import read_identity
from common.moments import current_moment, moment_text
from common.reasons import PolicyCode
from common.signed_plan import sign_plan, write_signed_plan
from tests.federation_play import DRAFT
from tests.site_play import make_site_play


@pytest.fixture
def play(tmp_path):
    play = make_site_play(tmp_path)
    yield play
    play.close()


@pytest.fixture
def signed(play):
    return play.federation.sign()


@pytest.fixture
def acceptance(play):
    return play.site.acceptance


def test_a_plan_is_kept_once_and_seen_once(play, acceptance, signed):
    assert acceptance.offered(signed.digest) is None
    for _ in range(3):
        assert acceptance.offer(signed).state == "accepted"
    assert play.home.plan(signed.digest).read_bytes() == write_signed_plan(signed)
    assert play.home.plan(signed.digest).stat().st_mode & 0o777 == 0o600
    assert [event.plan for event in play.told(PlanSeen)] == [signed.digest]
    assert acceptance.offered(signed.digest) == signed


def test_a_plan_outlives_the_process(play, acceptance, signed):
    acceptance.offer(signed)
    play.close()
    assert play.site.acceptance.check(signed.digest) == signed


def test_what_was_never_offered_is_not_taken_part_in(acceptance):
    with pytest.raises(RefusedError, match="no such plan was offered"):
        acceptance.check("0" * 64)


def test_a_plan_that_a_person_brings_is_kept_as_one_that_is_offered(play, acceptance, signed):
    assert keep_plan(play.home, play.open().audit, play.open().pinned, write_signed_plan(signed)) == signed
    assert acceptance.check(signed.digest) == signed
    assert [event.plan for event in play.told(PlanSeen)] == [signed.digest]


def test_a_unit_without_a_budget_is_over_it(play, acceptance):
    signed = play.federation.sign({**DRAFT, "privacy": {**DRAFT["privacy"], "unit": "record"}})
    assert acceptance.offer(signed).codes == ("other-unit", "over-budget")


def test_reading_keeps_nothing(play, acceptance, signed):
    assert acceptance.read(write_signed_plan(signed)) == signed
    assert list(play.home.plans.iterdir()) == []
    assert play.told(PlanSeen) == []


@pytest.mark.parametrize("who", ["another coordinator", "another federation"])
def test_a_plan_of_somebody_else_is_refused(play, acceptance, signed, who):
    now = current_moment()
    coordinator = new_identity() if who == "another coordinator" else play.coordinator
    federation = "0" * 64 if who == "another federation" else signed.federation
    other = write_signed_plan(sign_plan(signed.plan, federation, now, now + timedelta(days=1), coordinator))
    pinned = play.open().pinned
    for attempt in (
        lambda: acceptance.read(other),
        lambda: checked_plan(other, pinned),
        lambda: keep_plan(play.home, play.open().audit, pinned, other),
    ):
        with pytest.raises(IntegrityError, match="by another coordinator, or for another federation"):
            attempt()
    assert list(play.home.plans.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data.replace(b'"rounds":3', b'"rounds":4')])
def test_a_kept_plan_that_was_changed_is_refused(play, acceptance, signed, damage):
    acceptance.offer(signed)
    play.home.plan(signed.digest).write_bytes(damage(write_signed_plan(signed)))
    play.close()
    with pytest.raises(IntegrityError):
        play.site.acceptance.check(signed.digest)


def test_without_an_approval_it_waits_and_with_one_it_takes_part(play, acceptance):
    signed = play.federation.sign(approved=False)
    verdict = acceptance.offer(signed)
    assert (verdict.state, verdict.codes) == ("waiting", ("not-approved",))
    with pytest.raises(NotTakingPartError, match="a person here must approve the plan") as error:
        acceptance.check(signed.digest)
    assert error.value.verdict == verdict
    approve(play.home, signed.digest, "tester", signed.valid_until)
    assert acceptance.check(signed.digest) == signed
    withdraw(play.home, signed.digest)
    with pytest.raises(NotTakingPartError):
        acceptance.check(signed.digest)
    assert [event.codes for event in play.told(Refused)] == 2 * [("not-approved",)]


def test_under_an_approval_that_was_edited_no_request_is_served(play, acceptance, signed):
    acceptance.offer(signed)
    path = play.home.approval(signed.digest)
    path.write_bytes(path.read_bytes().replace(b'"by":"', b'"by":"x'))
    with pytest.raises(IntegrityError, match="plan approval"):
        acceptance.check(signed.digest)
    assert not acceptance.is_reserved(signed.digest)


def test_a_plan_that_is_signed_anew_needs_a_person_beyond_what_was_approved(play, acceptance, signed, monkeypatch):
    """An expired plan came back to life for 300 days once, and nobody was asked or told."""
    acceptance.offer(signed)
    now = current_moment()
    anew = sign_plan(signed.plan, signed.federation, now, now + timedelta(days=300), play.coordinator)
    assert acceptance.offer(anew).state == "accepted", "until what was approved ends"
    assert play.home.plan(signed.digest).read_bytes() == write_signed_plan(anew)
    seen = [event.valid_until for event in play.told(PlanSeen)]
    assert seen == [moment_text(signed.valid_until), moment_text(anew.valid_until)]
    late = signed.valid_until + timedelta(seconds=1)
    monkeypatch.setattr(type(acceptance.ledger), "latest_time", property(lambda _: late))
    verdict = acceptance.offer(anew)
    assert (verdict.state, verdict.codes) == ("waiting", ("not-approved",))
    with pytest.raises(NotTakingPartError):
        acceptance.check(anew.digest)
    approve(play.home, anew.digest, "tester", anew.valid_until)
    assert acceptance.check(anew.digest) == anew


def test_an_expired_plan_stays_so_when_the_clock_is_back_after_a_restart(play, acceptance, signed):
    """The audit log has seen later days than the ledger, where the plan was refused."""
    acceptance.offer(signed)
    play.close()
    late = signed.valid_until + timedelta(seconds=1)
    identity = read_identity(play.home.identity_key)
    log = AuditLog(play.home.audit, play.home.audit_anchor, identity, clock=lambda: late)
    log.record(Started(part="site", version="0.1.0"))
    assert play.site.acceptance.offer(signed).codes == ("plan-expired",)


def test_time_that_passes_counts_at_once(play, acceptance, signed, monkeypatch):
    acceptance.offer(signed)
    late = signed.valid_until + timedelta(seconds=1)
    monkeypatch.setattr(type(acceptance.ledger), "latest_time", property(lambda _: late))
    with pytest.raises(NotTakingPartError) as error:
        acceptance.check(signed.digest)
    assert error.value.verdict.codes == ("plan-expired",)


def test_a_cost_is_set_aside_once_and_before_it_is_said(play, acceptance, signed):
    acceptance.offer(signed)
    assert not acceptance.is_reserved(signed.digest)
    for _ in range(2):
        acceptance.reserve(signed)
    assert acceptance.is_reserved(signed.digest)
    (event,) = play.told(Reserved)
    made = acceptance.ledger.reservation(signed.digest)
    assert (event.plan, event.rounds, event.unit) == (signed.digest, 3, "patient")
    assert made.cost <= event.cost <= made.cost + 1e-6


def test_a_busy_log_gets_its_line_before_anything_else_is_spent(play, acceptance, signed, monkeypatch):
    """A hospital was shut out for good at its next start once, because the line was given up."""

    def busy(*_):
        raise TryAgainError("another process holds the log")

    acceptance.offer(signed)
    with monkeypatch.context() as patch:
        patch.setattr(type(acceptance.audit), "record", busy)
        for _ in range(2):
            with pytest.raises(TryAgainError):
                acceptance.reserve(signed)
    assert acceptance.is_reserved(signed.digest)
    assert play.told(Reserved) == []
    acceptance.reserve(signed)
    assert [event.plan for event in play.told(Reserved)] == [signed.digest]
    play.close()
    assert play.site.acceptance.is_reserved(signed.digest), "the site opens"


def test_a_plan_beyond_the_budget_is_told_so_and_nothing_is_set_aside(play, acceptance, signed):
    config = play.home.config
    play.close()
    config.write_text(config.read_text().replace("epsilon = 100.0", "epsilon = 0.01"))
    acceptance = play.site.acceptance
    verdict = acceptance.offer(signed)
    assert (verdict.state, verdict.codes, verdict.over_budget) == ("refused", ("over-budget",), True)
    with pytest.raises(NotTakingPartError, match="the ledger has not enough left for it"):
        acceptance.check(signed.digest)
    with pytest.raises(BudgetError):
        acceptance.reserve(signed)
    assert play.told(Reserved) == []


def test_a_plan_that_was_reserved_goes_on_whatever_the_budget_became(play, acceptance, signed):
    acceptance.offer(signed)
    acceptance.reserve(signed)
    config = play.home.config
    play.close()
    config.write_text(config.read_text().replace("epsilon = 100.0", "epsilon = 0.01"))
    assert play.site.acceptance.check(signed.digest) == signed


def test_after_a_recovery_it_never_goes_on(play, acceptance, signed):
    acceptance.offer(signed)
    acceptance.reserve(signed)
    acceptance.ledger.recover("a test")
    assert not acceptance.is_reserved(signed.digest)
    with pytest.raises(NotTakingPartError):
        acceptance.check(signed.digest)
    with pytest.raises(BudgetError, match="from before a recovery"):
        acceptance.reserve(signed)


def with_policy(play, *lines):
    play.close()
    text = play.home.config.read_text()
    play.home.config.write_text(text.replace("[policy]", "\n".join(("[policy]", *lines))))
    return play.site.acceptance


def test_a_limit_on_trained_values_is_asked_once_they_are_known(play, signed):
    acceptance = with_policy(play, "most_trained_values = 100")
    assert acceptance.offer(signed).state == "accepted"
    assert acceptance.check(signed.digest, 100) == signed
    with pytest.raises(NotTakingPartError) as error:
        acceptance.check(signed.digest, 101)
    assert error.value.verdict.codes == ("too-many-trained-values",)


def local(play, folder):
    text = play.home.config.read_text()
    play.close()
    play.home.config.write_text(text + f'\n[base]\nlocal = ["{folder}"]\n')
    return with_policy(play, "base_must_be_local = true", "most_trained_values = 100")


def test_a_local_base_is_hashed_once_and_its_trained_values_are_asked_later(play, signed, monkeypatch):
    acceptance = local(play, play.federation.base)
    looked = []
    real = client.verdict.find_copy
    monkeypatch.setattr(client.verdict, "find_copy", lambda *args: looked.append(args) or real(*args))
    assert acceptance.offer(signed).state == "accepted"
    for _ in range(3):
        acceptance.check(signed.digest)
    assert len(looked) == 1


def test_a_base_that_is_not_local_is_looked_for_again(play, signed, tmp_path):
    acceptance = local(play, tmp_path / "later")
    assert acceptance.offer(signed).codes == ("base-not-local",)
    (tmp_path / "later").symlink_to(play.federation.base.resolve())
    assert acceptance.check(signed.digest) == signed


def test_a_local_base_whose_index_leads_elsewhere_is_none(play, tmp_path):
    base = play.federation.base.resolve()
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../../other.safetensors"}}))
    signed = play.federation.sign()
    assert local(play, base).offer(signed).codes == ("base-not-local",)


def test_refusals_name_known_codes_only(play, acceptance):
    """A plan that breaks as much as one plan can."""
    play.close()
    text = play.home.config.read_text()
    play.home.config.write_text(
        text.replace("most_epsilon = 50.0", "most_epsilon = 0.001\nmost_rounds = 1\nleast_sites = 9").replace(
            "epsilon = 100.0", "epsilon = 0.01"
        )
    )
    signed = play.federation.sign(approved=False)
    verdict = play.site.acceptance.offer(signed)
    assert verdict.state == "refused"
    assert "over-budget" in verdict.codes
    assert set(verdict.codes) <= {*get_args(PolicyCode), "over-budget"}
    assert list(verdict.codes) == sorted(set(verdict.codes))
    assert {"epsilon-too-high", "too-many-rounds", "not-approved"} <= set(verdict.codes)


def test_a_kept_plan_under_another_name_is_refused(play, acceptance, signed):
    acceptance.offer(signed)
    other = "0" * 64
    play.home.plan(other).write_bytes(write_signed_plan(signed))
    with pytest.raises(IntegrityError, match="another plan than its name says"):
        acceptance.check(other)


def test_offers_that_nobody_approved_are_kept_up_to_a_number(play, acceptance, signed, monkeypatch):
    monkeypatch.setattr("client.acceptance.MOST_OFFERS", 1)
    unwanted = play.federation.sign({**DRAFT, "name": "unwanted"}, approved=False)
    acceptance.offer(unwanted)
    third = play.federation.sign({**DRAFT, "name": "third"}, approved=False)
    with pytest.raises(RefusedError, match="1 plans that nobody approved"):
        acceptance.offer(third)
    assert not play.home.plan(third.digest).exists()
    acceptance.offer(unwanted)
    approve(play.home, unwanted.digest, "tester", unwanted.valid_until)
    assert acceptance.offer(third).state == "waiting"
