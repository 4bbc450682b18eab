"""What the ledger has and the audit log still lacks: written there before anything else is spent."""

from __future__ import annotations

from collections import deque

from common.audit import AuditLog
from common.audit_events import Reserved, RoundCharged


class SpendingNotes:
    """The events of spendings on their way into the audit log, for one node; made once, and shared by all that spend.

    Guarantees:
        A spending is noted after the ledger has it, and no further one begins before it is in the audit log, so that
        the log is at most one spending behind, as after a kill, and `client.rollback` mends that at the next start.
        A log that is busy, or a disk that is full, puts the note off and loses none.

    Edge cases:
        A log that took the line and failed right after it gets the line once more.

    Args:
        audit: The log.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._owed: deque[Reserved | RoundCharged] = deque()

    def settle(self) -> None:
        """Write what is owed; to be called before the ledger is written.

        Raises:
            TryAgainError, OSError, IntegrityError, RollbackError: As `common.audit.AuditLog.record`; all is owed still.
        """
        while self._owed:
            self._audit.record(self._owed[0])
            self._owed.popleft()

    def note(self, event: Reserved | RoundCharged) -> None:
        """Write what the ledger has just taken.

        Raises:
            TryAgainError, OSError, IntegrityError, RollbackError: As `settle`.
        """
        self._owed.append(event)
        self.settle()
