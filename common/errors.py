"""The errors of Cloister, drawn once, each with its exit code.

An error is one sentence that names the rule and the value that broke it, and a hint with the next step. No message
ever quotes a patient record.

    CloisterError               1  failed
    ├── UsageError              2  the command was typed wrongly
    ├── ConfigError             3  a config or the data do not fit; carries every problem at once
    │   └── DataError           3  the data cannot be read or are unfit
    ├── TransportError          4  connection or authentication
    │   └── AccessError         4  one side cannot prove to the other who it is
    ├── DeadlineError           5  timeout
    ├── RefusedError           10  a hospital's policy says no
    ├── BudgetError            11  the privacy budget does not allow it
    ├── NotApprovedError       12  the hospital has not approved this plan
    ├── IntegrityError         13  bytes are not what they should be
    │   └── ProtocolError      13  the other side broke the secure aggregation protocol
    ├── RollbackError          14  an older copy of what only ever grows was put back
    ├── SecureAggregationError 15  secure aggregation aborted
    ├── TooFewSitesError       16  fewer sites answered than the plan demands
    └── TryAgainError          75  a passing fault
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class CloisterError(Exception):
    """Base of every error a user may see.

    Args:
        message: One sentence: the rule and the value that broke it.
        hint: The next step for the reader; empty when there is none.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CloisterError):
    """The command was called wrongly."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config or a data set: where, which rule, what was found, what to do."""

    where: str
    rule: str
    value: str = ""
    hint: str = ""

    def __str__(self) -> str:
        found = f" (found {self.value})" if self.value else ""
        return f"{self.where}: {self.rule}{found}"


class ConfigError(CloisterError):
    """A config cannot be used; `problems` lists every reason, not only the first."""

    exit_code = 3

    def __init__(self, message: str, problems: tuple[Problem, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint)
        self.problems = problems


class DataError(ConfigError):
    """A data file cannot be read or does not fit; names file and column, never a record."""


class TransportError(CloisterError):
    """The other side could not be reached or could not prove who it is."""

    exit_code = 4


class AccessError(TransportError):
    """One side cannot prove to the other who it is; trying again does not help."""


class DeadlineError(CloisterError):
    """Something took longer than it was allowed to."""

    exit_code = 5


class RefusedError(CloisterError):
    """A hospital refuses what it was asked."""

    exit_code = 10


class BudgetError(CloisterError):
    """The privacy budget does not allow it."""

    exit_code = 11


class NotApprovedError(CloisterError):
    """A person at the hospital has to approve this plan first."""

    exit_code = 12


class IntegrityError(CloisterError):
    """Bytes are not what they should be: damaged, altered, replayed or of another run."""

    exit_code = 13


class ProtocolError(IntegrityError):
    """The other side broke the secure aggregation protocol."""


class RollbackError(CloisterError):
    """What only ever grows has shrunk: an older copy of a ledger, log or record was put back."""

    exit_code = 14


class SecureAggregationError(CloisterError):
    """Secure aggregation aborted: too little came in to unmask a sum, so nothing was learned and nothing changed."""

    exit_code = 15


class TooFewSitesError(CloisterError):
    """Fewer sites answered than the plan demands."""

    exit_code = 16


class TryAgainError(CloisterError):
    """A passing fault; the same call may succeed later."""

    exit_code = 75
