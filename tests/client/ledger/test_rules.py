"""Rules as pure functions of a state; tests/client/ledger/test_ledger.py asks them through the ledger."""

from dataclasses import asdict, replace

import pytest

from client.ledger.rows import BudgetSet, Committed, Reserved, Stepped
from client.ledger.rules import budget_entry, check_room, finite_cost, is_committed, is_reserved, is_taken
from client.ledger.state import Account, LedgerState, Reservation
from client.standing import Standing
from common.errors import BudgetError, ConfigError, RollbackError
from common.privacy.renyi_filter import RenyiFilter
from tests.client.ledger_site import BUDGET, COORDINATOR, ORDER, OTHER_ORDER, OTHER_PLAN, PLAN, ROUNDS, RUN, Clock

KEY = ("records", "patient")
LIMITS = RenyiFilter(5.0, 1e-5, 5)
ASKED = Reserved(
    plan_digest=PLAN,
    plan_name="study",
    coordinator=COORDINATOR,
    dataset="records",
    unit="patient",
    rounds=ROUNDS,
    cost=LIMITS.limit,
    mechanism=asdict(RUN),
)
KNOWN = Reservation(**ASKED.model_dump(), sequence=3, time=Clock().now)
FRESH = LedgerState(accounts={KEY: Account(LIMITS)})
RESERVED = replace(FRESH, reservations={PLAN: KNOWN}, standings={PLAN: Standing(3, ORDER)})
CLOSED = replace(RESERVED, closed=frozenset({PLAN}))


def test_a_plan_is_reserved_once():
    assert not is_reserved(FRESH, ASKED)
    assert is_reserved(RESERVED, ASKED)
    assert not is_reserved(RESERVED, ASKED.model_copy(update={"plan_digest": OTHER_PLAN}))
    with pytest.raises(BudgetError, match="from before a recovery"):
        is_reserved(CLOSED, ASKED)


def test_a_cost_that_another_library_rounds_otherwise_is_the_same_plan():
    assert is_reserved(RESERVED, ASKED.model_copy(update={"cost": ASKED.cost * (1 + 1e-15)}))


def test_just_the_whole_budget_fits():
    check_room(FRESH, ASKED, frozenset({KEY}))
    with pytest.raises(BudgetError, match=r"needs 100\.00% .* of which 100\.00% is left"):
        check_room(FRESH, ASKED.model_copy(update={"cost": ASKED.cost * (1 + 1e-15)}), frozenset({KEY}))
    with pytest.raises(BudgetError, match="was taken out of"):
        check_room(FRESH, ASKED, frozenset())


def test_a_price_needs_a_budget_and_noise():
    assert finite_cost(FRESH, "records", RUN) == LIMITS.cost(RUN)
    with pytest.raises(BudgetError, match="has no budget"):
        finite_cost(FRESH, "images", RUN)
    with pytest.raises(BudgetError, match="without noise"):
        finite_cost(FRESH, "records", replace(RUN, noise_multiplier=0.0))


@pytest.mark.parametrize(
    ("state", "number", "order", "kind"),
    [
        (FRESH, 1, ORDER, BudgetError),
        (CLOSED, 4, ORDER, BudgetError),
        (RESERVED, ROUNDS + 1, ORDER, BudgetError),
        (RESERVED, 3, OTHER_ORDER, RollbackError),
        (RESERVED, 2, ORDER, RollbackError),
    ],
)
def test_a_round_that_may_not_begin(state, number, order, kind):
    with pytest.raises(kind):
        is_committed(state, Committed(plan_digest=PLAN, round_number=number, order_digest=order))


def test_a_round_that_may_begin_or_has_begun():
    asked = Committed(plan_digest=PLAN, round_number=3, order_digest=ORDER)
    assert is_committed(RESERVED, asked)
    for number in (4, ROUNDS):
        assert not is_committed(RESERVED, asked.model_copy(update={"round_number": number}))


STEP = Stepped(plan_digest=PLAN, round_number=3, step="answered", digest="a" * 64)


def test_a_step_is_taken_once():
    assert not is_taken(RESERVED, STEP)
    taken = replace(RESERVED, standings={PLAN: Standing(3, ORDER, "a" * 64)})
    assert is_taken(taken, STEP)


@pytest.mark.parametrize(
    ("state", "changes", "kind"),
    [
        (FRESH, {}, BudgetError),
        (CLOSED, {}, BudgetError),
        (RESERVED, {"round_number": 2}, RollbackError),
        (RESERVED, {"round_number": 4}, RollbackError),
        (RESERVED, {"step": "agreed"}, RollbackError),
        (replace(RESERVED, standings={PLAN: Standing(3, ORDER, "b" * 64)}), {}, RollbackError),
    ],
)
def test_a_step_that_may_not_be_taken(state, changes, kind):
    with pytest.raises(kind):
        is_taken(state, STEP.model_copy(update=changes))


def test_a_budget_that_holds_needs_no_entry():
    assert budget_entry(FRESH, BUDGET) is None
    assert budget_entry(FRESH, replace(BUDGET, order=5)) is None


def test_a_budget_that_is_new_or_changed_gets_one():
    created = BudgetSet(dataset="records", unit="patient", epsilon=5.0, delta=1e-5, order=5)
    assert budget_entry(LedgerState(), BUDGET) == created
    assert budget_entry(LedgerState(), replace(BUDGET, order=9)).order == 9
    assert budget_entry(FRESH, replace(BUDGET, epsilon=1.0)) == created.model_copy(update={"epsilon": 1.0})
    assert budget_entry(FRESH, replace(BUDGET, delta=1e-6)) == created.model_copy(update={"delta": 1e-6})
    with pytest.raises(ConfigError, match="is 5 for good, not 9"):
        budget_entry(FRESH, replace(BUDGET, order=9))
