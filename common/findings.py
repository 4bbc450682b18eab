"""What a check found, in one sentence, with the mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of a check: how bad, about what, what was found, and what to do about it.

    Args:
        level: `pass`, `warn` (the run may go on) or `fail` (it should not start).
        subject: What was looked at, in a word or two.
        sentence: What was found; never a record's text, label or patient id.
        mend: The next step; empty when nothing is to be done.
    """

    level: Level
    subject: str
    sentence: str
    mend: str = ""


def counted(number: int, word: str, words: str = "") -> str:
    """`1 line`, `1,234 lines`, `2 entries`; `words` is for more than one where an s at the end will not do."""
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def times(number: int) -> str:
    """`once`, `2 times`."""
    return "once" if number == 1 else f"{number:,} times"
