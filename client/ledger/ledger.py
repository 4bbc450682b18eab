"""The hospital's own book of privacy: what it allows, what was spent on what, and what is left.

Two files keep it: the ledger (SQLite, a chain of signed entries, `client/ledger/rows.py`) and, in another folder, the
anchor (how far the chain had come, and on which machine). In which order they are written, and why a crash between the
two is neither a false alarm nor a loophole, stands in `client/ledger/chain.py`.

*What is seen*, each as an error on opening: a ledger or anchor that is missing, damaged, edited, shortened, older than
the other, signed by another key, or taken to another machine. Nothing is begun anew in its place; only
`client/ledger/recovery.py` goes on, and charges the worst case.

*What cannot be seen here*: ledger and anchor of one earlier moment, put back together (a snapshot of the whole
machine). The witness for that is elsewhere: the coordinator names in each envelope the highest sequence number that
this site has answered, and `client/inbox.py` refuses one that it does not remember. A clone of the whole machine, with
its machine id, is seen in the same way only. And whoever holds the identity's key can write what he likes.

*Crash and budget*: the full cost of a plan is set aside before its first round, and nothing gives it back: not a crash,
not an early stop, not a round that never came. What is recorded as spent is never less than what was spent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.ledger.chain import Clock, LedgerChain, LedgerPlace
from client.ledger.check import LedgerView, check_costs
from client.ledger.rows import Committed, Reserved, Row, Stepped, recovery
from client.ledger.rules import (
    budget_entry,
    check_room,
    finite_cost,
    is_committed,
    is_reserved,
    is_taken,
    refuse_renamed,
)
from client.ledger.state import LONG_AGO, Balance, Budget, Quote, Reservation
from client.standing import Standing, Step
from common.config import parse_config
from common.errors import ConfigError
from common.privacy.plan import PrivacyPlan


def utc_now() -> datetime:
    """The clock of this machine."""
    return datetime.now(UTC)


def open_ledger(
    path: Path,
    anchor_path: Path,
    identity: Ed25519PrivateKey,
    budgets: Iterable[Budget],
    host: str,
    *,
    clock: Clock = utc_now,
) -> Ledger:
    """Open a site's ledger for writing, and let it know the budgets that the hospital allows now.

    A budget that the ledger does not have yet is written down, with the order that it keeps for good; one that has
    changed is written down as raised or lowered. Lowering is always possible: below what is spent, nothing is left, and
    nothing that was spent is forgotten. After a recovery a budget has what it was raised by, and a new one nothing.

    Args:
        path: The ledger, which `create_ledger` made.
        anchor_path: Its anchor, in another folder.
        identity: The site's key.
        budgets: All that the hospital allows; nothing can be reserved for others, even if they have money left.
        host: This machine, by `host_identifier`.
        clock: Gives the time, with its zone.

    Raises:
        ConfigError: When a budget is out of range, twice there, or has another order than it was created with, or when
            none is for a data set that was charged.
        IntegrityError: When a file is missing, damaged, edited, of another site or another machine.
        RollbackError: When entries are missing at the end, or an older ledger or anchor was put back.
        TryAgainError: When another process has it open, or the disk does not take an entry.
    """
    ledger = Ledger(LedgerPlace(path, anchor_path, identity, host), clock)
    try:
        ledger.allow(budgets)
    except BaseException:
        ledger.close()
        raise
    return ledger


class Ledger:
    """A site's ledger, open for writing; made by `open_ledger`, and closed by its end or as a context.

    Guarantees:
        For every data set and unit, whatever plans of that unit were reserved, by whichever coordinators, each chosen
        after seeing all earlier results, their rounds together are (ε, δ)-differentially private for the budget's ε and
        δ (`RenyiFilter`); for the largest that ever held, where a person has changed them for reasons of their own.
        `reserve` and `commit` return only when their entry is durable, and what does not fit is refused before anything
        is written.

    Edge cases:
        A clock that moved back is noted and changes nothing, because expiry goes by `latest_time`. The book of one unit
        says nothing about plans of the other: a plan that hides records tells something about patients, and does not
        spend from their budget. Allow one unit for a data set.

    Raises:
        TryAgainError: From everything that writes, when the disk does not take the entry. No record was touched, and
            the next call finds out what is on disk.
        IntegrityError, RollbackError: From that next call, as `open_ledger` does.
    """

    def __init__(self, place: LedgerPlace, clock: Clock) -> None:
        self._chain = LedgerChain(place, clock)
        self._clock = clock
        self._allowed: frozenset[tuple[str, str]] = frozenset()
        self._latest = LONG_AGO

    # --- spending ---

    def reserve(
        self,
        plan_digest: str,
        plan_name: str,
        coordinator: str,
        dataset: str,
        mechanism: PrivacyPlan,
        rounds: int,
    ) -> Reservation:
        """Set the full cost of a plan aside; the same plan again gives what is there, and costs nothing.

        Args:
            plan_digest: Names the plan.
            plan_name: For people.
            coordinator: Its public key, 64 hexadecimal digits.
            dataset: Whose budget pays, together with the mechanism's unit.
            mechanism: What all rounds together run: its `steps` are those of the whole plan.
            rounds: R; rounds that may be begun.

        Raises:
            BudgetError: When there is no such budget, it has not enough left, the mechanism has no noise, the plan is
                from before a recovery, or it was reserved for another data set or coordinator. Nothing was written.
        """
        state = self._chain.state
        asked = {
            "plan_digest": plan_digest,
            "plan_name": plan_name,
            "coordinator": coordinator,
            "dataset": dataset,
            "unit": mechanism.unit,
            "rounds": rounds,
            "cost": finite_cost(state, dataset, mechanism),
            "mechanism": asdict(mechanism),
        }
        entry = parse_config(Reserved, asked, "the reservation of a plan")
        if not is_reserved(state, entry):
            check_room(state, entry, self._allowed)
            self._chain.append(entry)
        return self._chain.state.reservations[plan_digest]

    def commit(self, plan_digest: str, round_number: int, order_digest: str) -> None:
        """Write down that a round begins, before a record is touched; the same order again costs no second entry.

        The site's book of the run (`client/charges.py`) charges the round first. Then a book that is behind this ledger
        was put back, and a kill between the two leaves the ledger behind the book, which is harmless.

        Args:
            plan_digest: Names the plan, which must be reserved.
            round_number: From 1 to the plan's last; rounds may be skipped.
            order_digest: SHA-256 of the order, in hexadecimal.

        Raises:
            BudgetError: When nothing is reserved for this plan or round.
            RollbackError: When a later round, or another order for this one, was begun already.
        """
        asked = {"plan_digest": plan_digest, "round_number": round_number, "order_digest": order_digest}
        entry = parse_config(Committed, asked, "the beginning of a round")
        if not is_committed(self._chain.state, entry):
            self._chain.append(entry)

    def step(self, plan_digest: str, round_number: int, step: Step, digest: str) -> None:
        """Write down that the round begun last was answered, or agreed to a survivor set; again costs no second entry.

        As for `commit`, the run's book takes each step first: one that is behind the ledger was put back.

        Args:
            plan_digest: Names the plan, which must be reserved.
            round_number: The round that was begun last.
            step: `answered`, then `agreed`.
            digest: SHA-256 of the answer or survivor set, in hexadecimal.

        Raises:
            BudgetError: When nothing is reserved for this plan.
            RollbackError: When this is not the next step, or it was taken with something else.
        """
        asked = {"plan_digest": plan_digest, "round_number": round_number, "step": step, "digest": digest}
        entry = parse_config(Stepped, asked, "the step of a round")
        if not is_taken(self._chain.state, entry):
            self._chain.append(entry)

    def recover(self, reason: str) -> None:
        """Write down why this ledger is not to be trusted, and charge the worst case: nothing is left anywhere.

        No plan that was reserved before can go on. Budgets have something left again once a person raises them. For a
        ledger that cannot be opened there is `recover_ledger`.

        Args:
            reason: In a person's words, 1 to 2000 characters.

        Raises:
            ConfigError: When the reason is empty or longer.
        """
        self._chain.append(recovery(reason, "the ledger was sound", ()))

    def allow(self, budgets: Iterable[Budget]) -> None:
        """Let these budgets hold from now on, and no others; see `open_ledger`."""
        listed = tuple(budgets)
        keys = frozenset((budget.dataset, budget.unit) for budget in listed)
        if len(keys) < len(listed):
            raise ConfigError("a data set has two budgets for one unit", hint="keep one of them in site.toml")
        refuse_renamed(self._chain.state, listed)
        changes = [budget_entry(self._chain.state, budget) for budget in listed]
        for entry in changes:
            if entry is not None:
                self._chain.append(entry)
        self._allowed = keys

    # --- looking ---

    def committed(self, plan_digest: str) -> Standing:
        """How far the rounds of a plan have come."""
        return self._chain.state.committed(plan_digest)

    def reservation(self, plan_digest: str) -> Reservation | None:
        """What was set aside for a plan that may go on; None for one from before a recovery."""
        return self._chain.state.reservation(plan_digest)

    def quote(self, dataset: str, mechanism: PrivacyPlan) -> Quote:
        """What a mechanism would cost, and whether it fits; nothing is written."""
        return self._chain.state.quote(dataset, mechanism)

    def balance(self, dataset: str, unit: str) -> Balance:
        """What was spent of a budget, what is left, and the total."""
        return self._chain.state.balance(dataset, unit)

    def balances(self) -> tuple[Balance, ...]:
        """The balance of every budget that the ledger knows."""
        return tuple(account.balance(key) for key, account in sorted(self._chain.state.accounts.items()))

    def entries(self) -> tuple[Row, ...]:
        """Every entry, oldest first."""
        return self._chain.rows

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth telling and harmless, such as a clock that had moved back."""
        return self._chain.state.notes

    def is_closed(self, plan_digest: str) -> bool:
        """Whether a plan is from before a recovery, so that it is never taken up again."""
        return plan_digest in self._chain.state.closed

    def has_seen(self, moment: datetime) -> None:
        """Let `latest_time` know a moment that another book of this site has seen."""
        self._latest = max(self._latest, moment)

    @property
    def latest_time(self) -> datetime:
        """The latest time ever seen: of the entries since the last recovery, and of the clock since opening.

        What expires goes by this time: moving the clock back makes nothing valid again.
        """
        self._latest = max(self._latest, self._chain.state.latest_time, self._clock())
        return self._latest

    def verify(self) -> LedgerView:
        """Read both files again, check everything that opening checks, and compute every cost again.

        Raises:
            IntegrityError, RollbackError: As `open_ledger` does, and where a plan was charged less than it costs.
        """
        self._chain.forget()
        check_costs(self._chain.state)
        return LedgerView(self._chain.rows, self._chain.state)

    def close(self) -> None:
        """Let go of the files, so that another process may write."""
        self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
