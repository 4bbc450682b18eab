"""How far a run's book of charges has come, and who remembers it besides the book."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

CHARGED, ANSWERED, AGREED = 0, 1, 2


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


class Witness(Protocol):
    """Remembers elsewhere how far a book has come, so that an older copy of it is noticed."""

    def check(self, standing: BookStanding) -> None:
        """Asked when a book is opened.

        Raises:
            RollbackError: When the book was further, or stood there with something else.
        """
        ...

    def note(self, standing: BookStanding) -> None:
        """Told after each step of the book, before anything follows from it; durable when it returns."""
        ...
