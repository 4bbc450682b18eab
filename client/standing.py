"""How far a run's book of charges has come, and who remembers it besides the book."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

CHARGED, ANSWERED, AGREED = 0, 1, 2

Step = Literal["answered", "agreed"]
"""What may follow within a round that was charged, in this order."""


@dataclass(frozen=True)
class BookStanding:
    """A step of a book; rounds grow, and within a round stages do.

    Attributes:
        round_number: The last round that was charged; 0 before the first.
        stage: `CHARGED`, `ANSWERED`, or `AGREED` to a survivor set.
        digest: SHA-256 of the order, of the answer, or of the survivor set.
    """

    round_number: int = 0
    stage: int = CHARGED
    digest: str = ""

    @property
    def place(self) -> tuple[int, int]:
        """What only ever grows."""
        return self.round_number, self.stage

    def may_follow(self, known: BookStanding) -> bool:
        """Whether a book may stand here when its last known step is `known`: there, or just one step further.

        A round follows whatever the one before it came to: an order may never have been answered.
        """
        if self.place == known.place:
            return self == known
        if self.round_number == known.round_number:
            return self.round_number > 0 and self.stage == known.stage + 1
        return self.round_number > known.round_number and self.stage == CHARGED


@dataclass(frozen=True)
class Standing:
    """How far the ledger knows the rounds of a plan to have come.

    Attributes:
        last_round: The last round that was begun; 0 before the first.
        order_digest: Of its order.
        answer_digest: Of the answer to it; empty before there is one.
        survivors_digest: Of the one survivor set that was agreed to in it; empty before there is one.
    """

    last_round: int = 0
    order_digest: str = ""
    answer_digest: str = ""
    survivors_digest: str = ""

    @property
    def book(self) -> BookStanding:
        """The last step, as a book tells it."""
        digests = (self.order_digest, self.answer_digest, self.survivors_digest)
        stage = max(CHARGED, sum(map(bool, digests)) - 1)
        return BookStanding(self.last_round, stage, digests[stage])

    def has_taken(self, round_number: int, step: Step, digest: str) -> bool:
        """Whether this very step is known."""
        return round_number == self.last_round and digest == self._digests[step]

    def after(self, round_number: int, step: Step, digest: str) -> Standing | None:
        """One step further; None where it is not the next one."""
        stages: dict[Step, int] = {"answered": ANSWERED, "agreed": AGREED}
        if round_number == 0 or (round_number, stages[step] - 1) != self.book.place:
            return None
        if step == "answered":
            return replace(self, answer_digest=digest)
        return replace(self, survivors_digest=digest)

    @property
    def _digests(self) -> dict[Step, str]:
        return {"answered": self.answer_digest, "agreed": self.survivors_digest}


class Witness(Protocol):
    """Remembers elsewhere how far a book has come, so that an older copy of it is noticed."""

    def check(self, standing: BookStanding) -> None:
        """Asked when a book is opened.

        Raises:
            RollbackError: When the book was further, or stood there with something else.
        """
        ...

    def note(self, standing: BookStanding) -> None:
        """Told after each step of the book, before anything follows from it; durable when it returns.

        It is also told when a step is used once more, so that one which did not get here the first time gets here.
        """
        ...
