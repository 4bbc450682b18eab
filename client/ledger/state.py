"""What a ledger's entries add up to: budgets, what was spent of them, and which rounds were begun.

Pure: one entry in, the next state out. What an entry may not do after those before it is refused here, both before it
is written and when it is read again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from client.ledger.rows import BudgetSet, Committed, Opened, Recovered, Reserved, Row, Stepped, unfit
from client.standing import Standing
from common.errors import BudgetError
from common.plan import Unit
from common.privacy.plan import PrivacyPlan
from common.privacy.renyi_filter import RenyiFilter

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Before any clock."""

Key = tuple[str, str]
"""Name of a data set, and the unit whose presence the budget hides."""


@dataclass(frozen=True)
class Budget:
    """What a hospital allows in all for one data set and unit.

    Args:
        dataset: The hospital's name for the records.
        unit: Whose presence is hidden.
        epsilon: ε in total, above 0.
        delta: δ in total, in (0, 1).
        order: α of the filter, fixed when the budget is created; None takes the one with the most room.
    """

    dataset: str
    unit: Unit
    epsilon: float
    delta: float
    order: int | None = None


@dataclass(frozen=True)
class Reservation:
    """What was set aside for a plan, and the entry that says so."""

    plan_digest: str
    plan_name: str
    coordinator: str
    dataset: str
    unit: Unit
    rounds: int
    cost: float
    mechanism: Mapping[str, int | float | str]
    sequence: int
    time: datetime


@dataclass(frozen=True)
class Balance:
    """A budget in the figures that people compare, all at its δ.

    ε of what was spent has a constant part, so that it starts well above 0 with the first plan; from then on `spent`
    and `left` add up to `total`, unless the budget was lowered below what is spent. `share` is the part of the budget
    that is used, from 0 on; that one adds up over plans. The promise is `total`: `spent` would be one if just these
    plans had been fixed in advance, and is there to plan with.
    """

    dataset: str
    unit: str
    delta: float
    order: int
    spent: float
    left: float
    total: float
    share: float


@dataclass(frozen=True)
class Quote:
    """What a mechanism would cost one budget.

    Attributes:
        cost: The divergence that counts.
        epsilon: ε if nothing else was ever spent.
        added: By how much `spent` of the balance would rise; to be compared with `left`.
        share: Its part of the whole budget.
        fits: Whether what is left holds it.
    """

    cost: float
    epsilon: float
    added: float
    share: float
    fits: bool


@dataclass(frozen=True)
class Account:
    """One budget and what was taken out of it.

    Args:
        filter: The limit and its order.
        costs: Divergences at that order, one for each plan; after a recovery one for all that was before.
    """

    filter: RenyiFilter
    costs: tuple[float, ...] = ()

    @property
    def spent(self) -> float:
        """The sum of the costs, a divergence."""
        return math.fsum(self.costs)

    def emptied(self) -> Account:
        """The same with nothing left: what a recovery makes of it."""
        return replace(self, costs=(max(self.spent, self.filter.limit, 0.0),))

    def quote(self, mechanism: PrivacyPlan) -> Quote:
        """What a mechanism would take out of this budget."""
        cost = self.filter.cost(mechanism)
        alone = self.filter.equivalent(cost)
        added = self.filter.equivalent(self.spent + cost) - self.filter.equivalent(self.spent)
        return Quote(cost, alone, added, self.share(cost), self.filter.admits(self.costs, cost))

    def balance(self, key: Key) -> Balance:
        """The figures for people."""
        spent = self.filter.equivalent(self.spent)
        left = max(0.0, self.filter.equivalent(self.filter.limit) - spent)
        share = self.share(self.spent)
        return Balance(*key, self.filter.delta, self.filter.order, spent, left, self.filter.epsilon, share)

    def share(self, cost: float) -> float:
        """What part of the budget a divergence is; infinity where the budget holds nothing."""
        if cost == 0:
            return 0.0
        return cost / self.filter.limit if self.filter.limit > 0 else math.inf


@dataclass(frozen=True)
class LedgerState:
    """Where the books stand after some entries.

    Attributes:
        opened: The first entry; None before it.
        accounts: Budgets by data set and unit.
        reservations: By digest of the plan, those before a recovery too.
        standings: How far the rounds have come, by digest of the plan.
        closed: Plans from before a recovery: they are never taken up again.
        recovered: Whether there was a recovery; a budget that is new after one starts with nothing left.
        latest_time: The latest time that any entry has, since the last recovery.
        notes: What is worth telling and harmless: a clock that moved back.
    """

    opened: Opened | None = None
    accounts: Mapping[Key, Account] = field(default_factory=dict)
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    recovered: bool = False
    latest_time: datetime = LONG_AGO
    notes: tuple[str, ...] = ()

    def account(self, dataset: str, unit: str) -> Account:
        """The books of one budget.

        Raises:
            BudgetError: When there is none.
        """
        found = self.accounts.get((dataset, unit))
        if found is None:
            raise BudgetError(
                f"data set {dataset!r} has no budget for unit {unit}", hint="give it one under `[budget]` in site.toml"
            )
        return found

    def balance(self, dataset: str, unit: str) -> Balance:
        """What was spent, what is left, and the total; see `Balance`."""
        return self.account(dataset, unit).balance((dataset, unit))

    def quote(self, dataset: str, mechanism: PrivacyPlan) -> Quote:
        """What a mechanism would cost on this data set; nothing is written."""
        return self.account(dataset, mechanism.unit).quote(mechanism)

    def reservation(self, plan_digest: str) -> Reservation | None:
        """What was set aside for a plan that may go on; None for one from before a recovery."""
        return None if plan_digest in self.closed else self.reservations.get(plan_digest)

    def committed(self, plan_digest: str) -> Standing:
        """How far the rounds of a plan have come."""
        return self.standings.get(plan_digest, Standing())

    def after(self, row: Row) -> LedgerState:
        """The state with one more entry.

        Raises:
            IntegrityError: When the entry cannot follow those before it.
        """
        match row.meaning:
            case Opened() as content if self.opened is None:
                changed = replace(self, opened=content)
            case _ if self.opened is None:
                raise _impossible(row)
            case BudgetSet() as content:
                changed = self._with_budget(row, content)
            case Reserved() as content:
                changed = self._with_reservation(row, content)
            case Committed() as content:
                changed = self._with_commit(row, content)
            case Stepped() as content:
                changed = self._with_step(row, content)
            case Recovered() as content:
                changed = self._with_recovery(content)
            case _:
                raise _impossible(row)
        return _noted(changed, row)

    def _with_budget(self, row: Row, content: BudgetSet) -> LedgerState:
        key = (content.dataset, content.unit)
        limit = RenyiFilter(content.epsilon, content.delta, content.order)
        known = self.accounts.get(key)
        if known is None:
            account = Account(limit).emptied() if self.recovered else Account(limit)
        elif known.filter.order != content.order:
            raise _impossible(row)
        else:
            account = replace(known, filter=limit)
        return replace(self, accounts={**self.accounts, key: account})

    def _with_reservation(self, row: Row, content: Reserved) -> LedgerState:
        key = (content.dataset, content.unit)
        known = self.accounts.get(key)
        if known is None or content.plan_digest in self.reservations or content.plan_digest in self.closed:
            raise _impossible(row)
        reservation = Reservation(**content.model_dump(), sequence=row.sequence, time=row.when)
        return replace(
            self,
            accounts={**self.accounts, key: replace(known, costs=(*known.costs, content.cost))},
            reservations={**self.reservations, content.plan_digest: reservation},
        )

    def _with_commit(self, row: Row, content: Committed) -> LedgerState:
        plan = content.plan_digest
        reservation = self.reservation(plan)
        if reservation is None:
            raise _impossible(row)
        if not self.committed(plan).last_round < content.round_number <= reservation.rounds:
            raise _impossible(row)
        standing = Standing(content.round_number, content.order_digest)
        return replace(self, standings={**self.standings, plan: standing})

    def _with_step(self, row: Row, content: Stepped) -> LedgerState:
        plan = content.plan_digest
        standing = self.committed(plan).after(content.round_number, content.step, content.digest)
        if standing is None or self.reservation(plan) is None:
            raise _impossible(row)
        return replace(self, standings={**self.standings, plan: standing})

    def _with_recovery(self, content: Recovered) -> LedgerState:
        return replace(
            self,
            accounts={key: account.emptied() for key, account in self.accounts.items()},
            closed=self.closed | set(content.plans) | set(self.reservations),
            recovered=True,
            # A clock that once ran years ahead must not make every later plan look expired for ever.
            latest_time=LONG_AGO,
        )


def fold(rows: Iterable[Row]) -> LedgerState:
    """Where the books stand after all these entries.

    Raises:
        IntegrityError: When an entry cannot follow those before it.
    """
    state = LedgerState()
    for row in rows:
        state = state.after(row)
    return state


def _noted(state: LedgerState, row: Row) -> LedgerState:
    """The state with the entry's time; one that lies before an earlier entry's is worth a note."""
    back = (state.latest_time - row.when).total_seconds()
    if back <= 0:
        return replace(state, latest_time=row.when)
    return replace(state, notes=(*state.notes, f"entry {row.sequence}: the clock had moved back by {back:.0f} s"))


def _impossible(row: Row) -> Exception:
    return unfit(f"contradicts itself: entry {row.sequence} cannot follow those before it")
