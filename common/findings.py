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
