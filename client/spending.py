"""What a site's budgets were spent on, in figures that add up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from client.books import LedgerOutlook
from client.ledger.state import Balance, Key
from client.report import BudgetTable, StudyShare
from client.review import Review

_BEFORE = "before a recovery"


@dataclass(frozen=True)
class Expense:
    """What one plan took of a budget.

    Attributes:
        plan: Its name.
        digest: Its digest; empty for all that was spent before a recovery of the ledger.
        share: Of the budget, from 0 on.
        last_round: The last round that was charged.
        rounds: Of the plan.
        day: When it was set aside.
    """

    plan: str
    digest: str
    share: float
    last_round: int = 0
    rounds: int = 0
    day: str = ""


@dataclass(frozen=True)
class Spending:
    """One budget, what was spent of it, and what may come next.

    Attributes:
        balance: In the figures that people compare.
        expenses: What was spent, in order; their shares add up to the balance's.
        next: Plans that wait to be paid from it.
    """

    balance: Balance
    expenses: tuple[Expense, ...]
    next: tuple[Review, ...] = ()

    @property
    def table(self) -> BudgetTable:
        """For the report."""
        balance = self.balance
        return BudgetTable(
            dataset=balance.dataset,
            unit=balance.unit,
            delta=balance.delta,
            total=balance.total,
            spent=balance.spent,
            left=balance.left,
            share=_finite(balance.share),
            studies=[StudyShare(plan=expense.plan, share=_finite(expense.share)) for expense in self.expenses],
        )


def spending(books: LedgerOutlook, reviews: tuple[Review, ...] = ()) -> tuple[Spending, ...]:
    """Every budget with its expenses.

    Args:
        books: The ledger.
        reviews: Plans to show as what may come next; those that are paid for already are left out.
    """
    return tuple(
        Spending(balance, _expenses(books, (balance.dataset, balance.unit)), _next(reviews, balance))
        for balance in books.balances()
    )


def _expenses(books: LedgerOutlook, key: Key) -> tuple[Expense, ...]:
    state, account = books.state, books.state.accounts[key]
    paid = [
        Expense(
            plan=one.plan_name,
            digest=one.plan_digest,
            share=account.share(one.cost),
            last_round=state.committed(one.plan_digest).last_round,
            rounds=one.rounds,
            day=f"{one.time:%Y-%m-%d}",
        )
        for one in sorted(state.reservations.values(), key=lambda one: one.sequence)
        if (one.dataset, one.unit) == key and one.plan_digest not in state.closed
    ]
    earlier = account.spent - math.fsum(
        one.cost
        for one in state.reservations.values()
        if (one.dataset, one.unit) == key and one.plan_digest not in state.closed
    )
    if state.recovered and earlier > 0:
        return (Expense(_BEFORE, "", account.share(earlier)), *paid)
    return tuple(paid)


def _next(reviews: tuple[Review, ...], balance: Balance) -> tuple[Review, ...]:
    return tuple(
        review
        for review in reviews
        if not review.reserved and review.before is not None and review.before == balance and review.quote is not None
    )


def _finite(share: float) -> float:
    """A budget that holds nothing is used up."""
    return share if math.isfinite(share) else 1.0
