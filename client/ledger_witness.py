"""The ledger as the witness of a run's book: an older copy of the book is noticed when it is opened."""

from __future__ import annotations

from client.ledger import Ledger
from client.standing import CHARGED, BookStanding
from common.audit import AuditLog
from common.audit_events import RoundCharged
from common.errors import RollbackError


class LedgerWitness:
    """Writes each step of one run's book into the ledger, and compares.

    Guarantees:
        The book takes each step first, so that a kill in between leaves the ledger one step behind, never ahead. A book
        that is behind the ledger, or stands where the ledger does with another order, answer or survivor set, was put
        back: it would have a round answered twice under one mask, or two survivor sets signed.

    Args:
        ledger: Open for writing; the plan must be reserved in it.
        audit: Told of each round that is charged.
        plan_digest: Of the run's plan.
    """

    def __init__(self, ledger: Ledger, audit: AuditLog, plan_digest: str) -> None:
        self._ledger = ledger
        self._audit = audit
        self._plan_digest = plan_digest

    @property
    def begun(self) -> bool:
        """Whether a round of the plan was ever charged, so that there must be a book."""
        return self._ledger.committed(self._plan_digest).last_round > 0

    def check(self, standing: BookStanding) -> None:
        """As `client.standing.Witness`."""
        known = self._known()
        if standing.place < known.place or (standing.place == known.place != (0, 0) and standing != known):
            raise RollbackError(
                f"the run's book stands at round {standing.round_number}, and the ledger has seen it further, or with "
                "something else there",
                hint="an older copy was put back; this run is over for this site: ask for a new plan",
            )

    def note(self, standing: BookStanding) -> None:
        """As `client.standing.Witness`."""
        if standing == self._known() or standing.stage != CHARGED:
            return
        self._ledger.commit(self._plan_digest, standing.round_number, standing.digest)
        self._audit.record(
            RoundCharged(plan=self._plan_digest, round_number=standing.round_number, order=standing.digest)
        )

    def _known(self) -> BookStanding:
        known = self._ledger.committed(self._plan_digest)
        return BookStanding(known.last_round, CHARGED, known.order_digest)
