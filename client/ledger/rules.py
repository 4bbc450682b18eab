"""What a site may write into its ledger next: each rule refuses before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterable

from client.ledger.rows import BudgetSet, Committed, Reserved, Stepped
from client.ledger.state import Budget, LedgerState
from common.errors import BudgetError, ConfigError, RollbackError
from common.privacy.plan import PrivacyPlan
from common.privacy.renyi_filter import RenyiFilter


def is_reserved(state: LedgerState, asked: Reserved) -> bool:
    """Whether just this was reserved before.

    Raises:
        BudgetError: When the plan is from before a recovery, or was reserved for another use.
    """
    plan = asked.plan_digest
    if plan in state.closed:
        raise BudgetError(f"plan {asked.plan_name} is from before a recovery of the ledger", hint="ask for a new plan")
    known = state.reservations.get(plan)
    if known is None:
        return False
    there = (known.coordinator, known.dataset, known.rounds, known.mechanism)
    if there != (asked.coordinator, asked.dataset, asked.rounds, asked.mechanism):
        rule = f"plan {known.plan_name} was reserved on data set {known.dataset!r} in another way or for another"
        hint = "a plan runs once, on one data set, for one coordinator: ask for a new plan"
        raise BudgetError(f"{rule} coordinator", hint=hint)
    return True


def finite_cost(state: LedgerState, dataset: str, mechanism: PrivacyPlan) -> float:
    """The divergence that a mechanism costs on a data set.

    Raises:
        BudgetError: When there is no such budget, or the mechanism has no noise.
    """
    cost = state.quote(dataset, mechanism).cost
    if not math.isfinite(cost):
        raise BudgetError("a plan without noise fits in no budget", hint="ask for one with a noise multiplier above 0")
    return cost


def check_room(state: LedgerState, asked: Reserved, allowed: frozenset[tuple[str, str]]) -> None:
    """Refuse what does not fit in what is left, or what the hospital has no budget for any more.

    Raises:
        BudgetError: Saying what is needed and what is left, as parts of the budget.
    """
    key = (asked.dataset, asked.unit)
    account = state.account(*key)
    if key not in allowed:
        rule = f"the budget of data set {asked.dataset!r} for unit {asked.unit} was taken out of site.toml"
        raise BudgetError(rule, hint="put it back, if it is to be spent from")
    if not account.filter.admits(account.costs, asked.cost):
        need = f"plan {asked.plan_name} needs {account.share(asked.cost):.2%} of the budget of data set"
        left = f"{asked.dataset!r} for unit {asked.unit}, of which {max(0.0, 1 - account.share(account.spent)):.2%}"
        hint = "ask for fewer rounds or more noise, or raise the budget in site.toml on purpose"
        raise BudgetError(f"{need} {left} is left", hint=hint)


def is_committed(state: LedgerState, asked: Committed) -> bool:
    """Whether this round was begun before, for this very order.

    Raises:
        BudgetError: When nothing is reserved for this plan or round.
        RollbackError: When a later round, or another order for this one, was begun already.
    """
    plan, number = asked.plan_digest, asked.round_number
    reservation = state.reservation(plan)
    if reservation is None or number > reservation.rounds:
        raise BudgetError(f"nothing is reserved for round {number} of plan {plan[:8]}", hint="review the plan")
    last = state.committed(plan)
    if (number, asked.order_digest) == (last.last_round, last.order_digest):
        return True
    if number <= last.last_round:
        rule = f"round {number} of plan {reservation.plan_name} cannot begin after an order for round {last.last_round}"
        raise RollbackError(rule, hint="the run's folder is older than the ledger: ask for a new plan")
    return False


def is_taken(state: LedgerState, asked: Stepped) -> bool:
    """Whether the round that was begun last took this very step before.

    Raises:
        BudgetError: When nothing is reserved for this plan.
        RollbackError: When the round was not begun or is past, the step before it is missing, or it was taken with
            something else.
    """
    reservation = state.reservation(asked.plan_digest)
    if reservation is None:
        raise BudgetError(f"nothing is reserved for plan {asked.plan_digest[:8]}", hint="review the plan")
    last = state.committed(asked.plan_digest)
    if last.has_taken(asked.round_number, asked.step, asked.digest):
        return True
    if last.after(asked.round_number, asked.step, asked.digest) is None:
        rule = f"{asked.step!r} is not the next step of round {asked.round_number} of plan {reservation.plan_name}"
        raise RollbackError(rule, hint="ledger and the run's folder are of different times: ask for a new plan")
    return False


def refuse_renamed(state: LedgerState, budgets: Iterable[Budget]) -> None:
    """Refuse budgets under another data set's name, once a ledger has charged for one.

    Nothing here can tell other records from the same ones under a new name, and a new name would begin a full budget
    for the same patients. So there is no setting that allows it, and a recovery does not either: what it charges, it
    charges under the name that was. Other patients' records belong to another home.

    Raises:
        ConfigError: When site.toml names another data set than what was charged.
    """
    named = {budget.dataset for budget in budgets}
    charged = {dataset for (dataset, _), account in state.accounts.items() if account.costs}
    if named and charged - named:
        rule = f"site.toml calls the records {min(named)!r}, and the ledger has charged {min(charged - named)!r}"
        hint = "put `data.dataset` back; only records of other patients may have a home, and a budget, of their own"
        raise ConfigError(rule, hint=hint)


def budget_entry(state: LedgerState, budget: Budget) -> BudgetSet | None:
    """The entry that makes a budget hold; None when it does already.

    Raises:
        ConfigError: When the budget is out of range, or has another order than it was created with.
    """
    known = state.accounts.get((budget.dataset, budget.unit))
    limit = _filter(budget, None if known is None else known.filter.order)
    if known is not None and known.filter == limit:
        return None
    return BudgetSet(
        dataset=budget.dataset, unit=budget.unit, epsilon=limit.epsilon, delta=limit.delta, order=limit.order
    )


def _filter(budget: Budget, fixed: int | None) -> RenyiFilter:
    if fixed is not None and budget.order not in {None, fixed}:
        rule = f"the order of the budget of data set {budget.dataset!r} is {fixed} for good, not {budget.order}"
        raise ConfigError(rule, hint=f"leave `order` out, or let it be {fixed}")
    order = budget.order if fixed is None else fixed
    if order is None:
        return RenyiFilter.with_most_room(budget.epsilon, budget.delta)
    return RenyiFilter(budget.epsilon, budget.delta, order)
