"""The ledger as the witness of a run's book: an older copy of the book is noticed when it is opened."""

from __future__ import annotations

from client.ledger.ledger import Ledger
from client.spending_notes import SpendingNotes
from client.standing import AGREED, ANSWERED, CHARGED, BookStanding, Step
from common.audit_events import RoundCharged
from common.errors import RollbackError

_STEPS: dict[int, Step] = {ANSWERED: "answered", AGREED: "agreed"}


class LedgerWitness:
    """Writes each step of one run's book into the ledger, and compares.

    Guarantees:
        The book takes each step first, and nothing follows from it before the ledger has it, so that a kill leaves the
        ledger at most one step behind, never ahead, and nothing left this site for that step. A book that is behind the
        ledger, or stands where the ledger does with another order, answer or survivor set, was put back: it would have
        a round answered twice under one mask, or two survivor sets signed. A book that is further ahead has a ledger
        that was put back.

    Args:
        ledger: Open for writing; the plan must be reserved in it before a round is charged.
        spendings: Told of each round that is charged.
        plan_digest: Of the run's plan.
    """

    def __init__(self, ledger: Ledger, spendings: SpendingNotes, plan_digest: str) -> None:
        self._ledger = ledger
        self._spendings = spendings
        self._plan_digest = plan_digest

    @property
    def begun(self) -> bool:
        """Whether a round of the plan was ever charged, so that there must be a book."""
        return self._ledger.committed(self._plan_digest).last_round > 0

    def check(self, standing: BookStanding) -> None:
        """As `client.standing.Witness`; a ledger that is more than one step behind is no better.

        Raises:
            RollbackError: When book and ledger are of different times.
        """
        known = self._known
        if not standing.may_follow(known):
            behind = "the ledger" if standing.place > known.place else "the run's book"
            raise RollbackError(
                f"{behind} is an older copy: the book stands at {_words(standing)}, and the ledger at {_words(known)}",
                hint="this run is over for this site, and stays paid for: ask for a new plan",
            )

    def note(self, standing: BookStanding) -> None:
        """As `client.standing.Witness`; what the audit log did not take the last time is written there first."""
        self._spendings.settle()
        if standing == self._known:
            return
        number, digest = standing.round_number, standing.digest
        if standing.stage == CHARGED:
            self._ledger.commit(self._plan_digest, number, digest)
            self._spendings.note(RoundCharged(plan=self._plan_digest, round_number=number, order=digest))
        else:
            self._ledger.step(self._plan_digest, number, _STEPS[standing.stage], digest)

    @property
    def _known(self) -> BookStanding:
        return self._ledger.committed(self._plan_digest).book


def _words(standing: BookStanding) -> str:
    return f"round {standing.round_number}, {_STEPS.get(standing.stage, 'charged')}"
