import math
from dataclasses import replace

import pytest

from client.ledger.ledger import open_ledger, utc_now
from client.standing import Standing
from common.errors import BudgetError, ConfigError, IntegrityError, RollbackError, TryAgainError
from common.privacy.renyi_filter import RenyiFilter
from tests.client.ledger_site import (
    BUDGET,
    ORDER,
    OTHER_COORDINATOR,
    OTHER_ORDER,
    OTHER_PLAN,
    PLAN,
    ROUNDS,
    RUN,
    THIRD_PLAN,
    Site,
    reserve,
)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site").create()


@pytest.fixture
def ledger(site):
    with site.open() as opened:
        yield opened


def spent(ledger, dataset="records", unit="patient"):
    return ledger.balance(dataset, unit).share


# --- reserving -------------------------------------------------------------------------------------------------------


def test_the_full_cost_is_on_disk_before_the_first_round(site, ledger):
    cost = RenyiFilter.with_most_room(5.0, 1e-5).cost(RUN)
    reservation = reserve(ledger)
    assert reservation.cost == cost > 0
    assert (reservation.plan_digest, reservation.rounds, reservation.sequence) == (PLAN, ROUNDS, 3)
    assert site.read().state.reservations == {PLAN: reservation} == {PLAN: ledger.reservation(PLAN)}
    assert site.read().state.balance("records", "patient") == ledger.balance("records", "patient")


def test_the_same_plan_again_is_charged_once_over_restarts(site, ledger):
    first = reserve(ledger)
    assert reserve(ledger) == first
    ledger.close()
    with site.open() as again:
        assert reserve(again) == first
        assert len(again.entries()) == 3


def test_what_does_not_fit_is_refused_before_anything_is_written(site, ledger):
    reserve(ledger)
    reserve(ledger, OTHER_PLAN, coordinator=OTHER_COORDINATOR)
    before = site.path.read_bytes(), site.anchor.read_bytes()
    with pytest.raises(BudgetError, match=r"needs 37\.17% of the budget .* of which 25\.65% is left") as refusal:
        reserve(ledger, THIRD_PLAN)
    assert (site.path.read_bytes(), site.anchor.read_bytes()) == before
    assert (refusal.value.exit_code, bool(refusal.value.hint)) == (11, True)
    assert ledger.reservation(THIRD_PLAN) is None
    reserve(ledger, THIRD_PLAN, replace(RUN, steps=300))


def test_runs_of_several_coordinators_share_one_budget_and_data_sets_do_not(site, ledger):
    ledger.close()
    with site.open(BUDGET, replace(BUDGET, dataset="images"), replace(BUDGET, unit="record")) as three:
        reserve(three)
        reserve(three, OTHER_PLAN, coordinator=OTHER_COORDINATOR)
        assert spent(three) == pytest.approx(2 * 0.3717, abs=1e-4)
        assert spent(three, "images") == spent(three, unit="record") == 0
        reserve(three, THIRD_PLAN, dataset="images")
        assert [line.dataset for line in three.balances()] == ["images", "records", "records"]


@pytest.mark.parametrize(
    "change",
    [{"coordinator": OTHER_COORDINATOR}, {"dataset": "images"}, {"rounds": 10}, {"mechanism": replace(RUN, steps=100)}],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_is_for_one_use(site, ledger, change):
    ledger.close()
    with site.open(BUDGET, replace(BUDGET, dataset="images")) as two:
        reserve(two)
        with pytest.raises(BudgetError, match="in another way or for another coordinator"):
            reserve(two, **change)
        assert len(two.entries()) == 4


def test_without_a_budget_nothing_is_reserved(site, ledger):
    for change in ({"dataset": "images"}, {"mechanism": replace(RUN, unit="record")}):
        with pytest.raises(BudgetError, match="has no budget for unit"):
            reserve(ledger, **change)
    with pytest.raises(BudgetError, match="without noise"):
        reserve(ledger, mechanism=replace(RUN, noise_multiplier=0.0))
    assert len(ledger.entries()) == 2


def test_a_budget_that_was_taken_out_of_the_config_is_not_spent_from(site, ledger):
    ledger.close()
    with site.open(replace(BUDGET, dataset="images")) as other:
        with pytest.raises(BudgetError, match="was taken out of"):
            reserve(other)
        assert len(other.entries()) == 3


@pytest.mark.parametrize("change", [{"plan": "A" * 64}, {"rounds": 0}, {"plan_name": ""}, {"coordinator": "me"}])
def test_an_entry_out_of_range_is_refused_in_plain_words(ledger, change):
    with pytest.raises(ConfigError, match="the reservation of a plan has 1 problem"):
        reserve(ledger, **change)
    assert len(ledger.entries()) == 2


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_a_round_is_on_disk_before_it_begins(site, ledger):
    reserve(ledger)
    assert ledger.committed(PLAN) == Standing(0, "")
    ledger.commit(PLAN, 1, ORDER)
    assert ledger.committed(PLAN) == Standing(1, ORDER) == site.read().state.committed(PLAN)


def test_the_same_order_again_is_no_second_entry(ledger):
    reserve(ledger)
    for _ in range(3):
        ledger.commit(PLAN, 2, ORDER)
    assert len(ledger.entries()) == 4


def test_rounds_may_be_skipped_and_stay_paid_for(ledger):
    reserve(ledger)
    before = spent(ledger)
    ledger.commit(PLAN, 1, ORDER)
    ledger.commit(PLAN, ROUNDS, OTHER_ORDER)
    assert spent(ledger) == before


@pytest.mark.parametrize(("number", "order"), [(3, OTHER_ORDER), (2, ORDER), (1, ORDER)])
def test_a_book_of_charges_that_was_put_back_is_revealed(ledger, number, order):
    reserve(ledger)
    ledger.commit(PLAN, 3, ORDER)
    with pytest.raises(RollbackError, match=f"round {number} of plan study cannot begin after an order for round 3"):
        ledger.commit(PLAN, number, order)
    assert ledger.committed(PLAN) == Standing(3, ORDER)


def test_only_reserved_rounds_begin(ledger):
    with pytest.raises(BudgetError, match=f"nothing is reserved for round 1 of plan {PLAN[:8]}"):
        ledger.commit(PLAN, 1, ORDER)
    reserve(ledger)
    with pytest.raises(BudgetError, match="nothing is reserved for round 21"):
        ledger.commit(PLAN, ROUNDS + 1, ORDER)
    with pytest.raises(ConfigError, match="the beginning of a round has 1 problem"):
        ledger.commit(PLAN, 0, ORDER)
    assert ledger.committed(PLAN) == Standing()


# --- budgets ---------------------------------------------------------------------------------------------------------


def test_an_unchanged_budget_is_written_once(site, ledger):
    ledger.close()
    with site.open() as again:
        assert [row.kind for row in again.entries()] == ["opened", "budget"]


def test_a_raised_budget_is_an_entry_and_keeps_its_order(site, ledger):
    reserve(ledger)
    reserve(ledger, OTHER_PLAN)
    ledger.close()
    with site.open(replace(BUDGET, epsilon=6.0)) as raised:
        balance = raised.balance("records", "patient")
        assert (balance.total, balance.order, balance.delta) == (6.0, 5, 1e-5)
        assert RenyiFilter.with_most_room(6.0, 1e-5).order != 5
        assert balance.spent + balance.left == pytest.approx(6.0)
        reserve(raised, THIRD_PLAN)
        assert [row.kind for row in raised.entries()][-2:] == ["budget", "reserve"]


def test_lowering_always_works_and_forgets_nothing(site, ledger):
    reserve(ledger)
    before = ledger.balance("records", "patient")
    ledger.close()
    with site.open(replace(BUDGET, epsilon=2.5)) as lowered:
        balance = lowered.balance("records", "patient")
        assert (balance.spent, balance.left, balance.total) == (before.spent, 0.0, 2.5)
        assert balance.spent > balance.total
        assert balance.share > 1
        with pytest.raises(BudgetError, match=r"of which 0\.00% is left"):
            reserve(lowered, OTHER_PLAN, replace(RUN, steps=1))
        lowered.commit(PLAN, 1, ORDER)
    with site.open() as raised:
        assert raised.balance("records", "patient") == before


def test_a_budget_lowered_to_nothing_holds_nothing(site, ledger):
    ledger.close()
    with site.open(replace(BUDGET, epsilon=0.1)) as lowered:
        assert lowered.balance("records", "patient").left == 0
        assert lowered.quote("records", RUN).share == math.inf
        with pytest.raises(BudgetError):
            reserve(lowered, mechanism=replace(RUN, steps=1))


def test_an_order_is_fixed_with_the_budget(tmp_path):
    site = Site(tmp_path / "own").create()
    with site.open(replace(BUDGET, order=12)) as ledger:
        assert ledger.balance("records", "patient").order == 12
    with site.open(BUDGET) as ledger:
        assert ledger.balance("records", "patient").order == 12
    with pytest.raises(ConfigError, match="is 12 for good, not 5"):
        site.open(replace(BUDGET, order=5))
    site.open(replace(BUDGET, order=12)).close()


@pytest.mark.parametrize("budget", [replace(BUDGET, epsilon=0.0), replace(BUDGET, delta=2.0), replace(BUDGET, order=1)])
def test_an_impossible_budget_is_refused_and_the_lock_given_back(tmp_path, budget):
    site = Site(tmp_path / "own").create()
    with pytest.raises(ConfigError, match="of a budget must"):
        site.open(budget)
    site.open().close()


def test_two_budgets_for_one_unit_are_refused_before_either_is_written(tmp_path):
    site = Site(tmp_path / "own").create()
    with pytest.raises(ConfigError, match="two budgets for one unit"):
        site.open(BUDGET, replace(BUDGET, epsilon=9.0))
    assert len(site.read().rows) == 1


# --- figures ---------------------------------------------------------------------------------------------------------


def test_the_figures_for_people(ledger):
    fresh = ledger.balance("records", "patient")
    assert (fresh.spent, fresh.left, fresh.total, fresh.share) == (0.0, 5.0, 5.0, 0.0)
    first = ledger.quote("records", RUN)
    assert first.fits
    assert first.added == first.epsilon
    reserve(ledger)
    after, second = ledger.balance("records", "patient"), ledger.quote("records", RUN)
    assert after.spent == pytest.approx(first.epsilon)
    assert after.spent + after.left == pytest.approx(after.total)
    assert after.share == first.share == second.share
    assert second.added == pytest.approx(second.cost)
    assert second.added < second.epsilon == first.epsilon
    reserve(ledger, OTHER_PLAN)
    third = ledger.quote("records", RUN)
    assert not third.fits
    assert third.added > ledger.balance("records", "patient").left


def test_what_was_spent_is_epsilon_by_another_accountant(ledger):
    from dp_accounting import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    plain = replace(RUN, noise="gaussian", noise_shares=1)
    reserve(ledger, mechanism=plain)
    accountant = RdpAccountant([5], NeighboringRelation.ADD_OR_REMOVE_ONE).compose(plain.event())
    assert ledger.balance("records", "patient").spent == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)


def test_looking_writes_nothing(site, ledger):
    before = site.path.read_bytes(), site.anchor.read_bytes()
    ledger.balances(), ledger.quote("records", RUN), ledger.verify(), ledger.entries(), ledger.notes, ledger.latest_time
    site.read()
    assert (site.path.read_bytes(), site.anchor.read_bytes()) == before


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_moved_back_is_noted_and_makes_nothing_valid_again(site, ledger):
    site.clock.move(hours=1)
    late = ledger.latest_time
    reserve(ledger)
    site.clock.move(minutes=-10)
    assert ledger.latest_time == late
    ledger.commit(PLAN, 1, ORDER)
    assert ledger.notes == ("entry 4: the clock had moved back by 600 s",)
    ledger.close()
    with site.open() as again:
        assert again.latest_time == late
        assert again.notes == ("entry 4: the clock had moved back by 600 s",)


def test_the_time_seen_grows_with_the_clock_between_entries(site, ledger):
    site.clock.move(days=1)
    seen = ledger.latest_time
    assert seen == site.clock.now
    site.clock.move(days=-2)
    assert ledger.latest_time == seen


def test_the_default_clock_is_now_in_utc(tmp_path):
    site = Site(tmp_path / "own").create()
    before = utc_now()
    with open_ledger(site.path, site.anchor, site.identity, (BUDGET,), site.host) as ledger:
        assert before <= ledger.entries()[-1].when <= utc_now()
        assert ledger.entries()[-1].when.utcoffset().total_seconds() == 0


# --- recovery on a ledger that opens ---------------------------------------------------------------------------------


def test_a_recovery_charges_everything_and_ends_every_plan(site, ledger):
    reserve(ledger)
    ledger.commit(PLAN, 1, ORDER)
    ledger.recover("the coordinator remembers more than this site")
    balance = ledger.balance("records", "patient")
    assert (balance.left, balance.share) == (0.0, 1.0)
    assert balance.spent == pytest.approx(5.0)
    for use in (lambda: ledger.commit(PLAN, 2, ORDER), lambda: reserve(ledger), lambda: reserve(ledger, OTHER_PLAN)):
        with pytest.raises(BudgetError):
            use()
    assert ledger.entries()[-1].kind == "recovery"
    assert ledger.reservation(PLAN) is None
    assert PLAN in site.read().state.reservations


def test_after_a_recovery_a_raise_counts_and_nothing_else(site, ledger):
    ledger.recover("for the test")
    ledger.close()
    new = replace(BUDGET, dataset="images")
    with site.open(BUDGET, new) as again:
        assert again.balance("records", "patient").left == again.balance("images", "patient").left == 0
    with site.open(replace(BUDGET, epsilon=7.5), new) as raised:
        assert raised.balance("records", "patient").left == pytest.approx(2.5)
        reserve(raised, OTHER_PLAN)
        raised.recover("again")
        with pytest.raises(BudgetError, match="from before a recovery"):
            reserve(raised, OTHER_PLAN)


@pytest.mark.parametrize("reason", ["", "x" * 2001])
def test_a_recovery_has_a_reason(ledger, reason):
    with pytest.raises(ConfigError, match="the recovery has 1 problem"):
        ledger.recover(reason)
    assert len(ledger.entries()) == 2


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_second_process_is_turned_away_and_readers_are_not(site, ledger):
    with pytest.raises(TryAgainError, match="another process is writing the ledger") as refusal:
        site.open()
    assert refusal.value.exit_code == 75
    assert len(site.read().rows) == 2
    ledger.close()
    site.open().close()


def test_a_ledger_that_was_never_begun_is_not_begun_by_opening(tmp_path):
    site = Site(tmp_path / "own")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="is missing"):
            site.open()
    assert not site.path.exists()


def test_verify_finds_what_was_changed_under_an_open_ledger(site, ledger):
    assert ledger.verify().rows == ledger.entries()
    site.sql("UPDATE entries SET time = '2020-01-01T00:00:00+00:00' WHERE sequence = 2")
    for look in (ledger.verify, ledger.balances, lambda: reserve(ledger)):
        with pytest.raises(IntegrityError, match="was edited: entry 2"):
            look()


def test_verify_finds_a_plan_that_was_charged_too_little(site, ledger, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("client.ledger.ledger.finite_cost", lambda *_: 0.5)
        reserve(ledger)
    for look in (ledger.verify, site.read):
        with pytest.raises(IntegrityError, match="charged plan study less than it costs, in entry 3"):
            look()
