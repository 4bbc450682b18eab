"""What a run tells while it goes on: lines in its folder, one an event, for `run`, `status` and whoever looks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

PROGRESS_NAME = "progress.jsonl"

Phase = Literal["preparing", "gathering", "training", "finished", "stopped", "failed"]
SiteState = Literal["silent", "waiting", "refused", "accepted", "fetching", "not-ready", "ready"]


@dataclass(frozen=True)
class SiteProgress:
    """Where a site stands before the first round.

    Attributes:
        site: Its name.
        state: silent: no answer yet. waiting: for a person there. refused. accepted: it waits for others to accept.
            fetching: the base model. not-ready: it could not prepare. ready.
        codes: Why it waits, refuses or is not ready.
        fraction: Of the base model that it has, while it fetches it.
    """

    site: str
    state: SiteState
    codes: tuple[str, ...] = ()
    fraction: float = 0.0


@dataclass(frozen=True)
class RoundProgress:
    """One round, as it is told to people.

    Attributes:
        round_number: From 1.
        survivors: Sites in the sum.
        epsilon: What the rounds so far have cost, at the plan's δ.
        seconds: How long it took.
        figures: Of the model on the public sets, where it was judged.
        refusals: Number of sites by refusal code.
        remark: Why the round changed nothing; empty where it did.
        silent: Sites that left an order unanswered.
    """

    round_number: int
    survivors: int
    epsilon: float
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""
    silent: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhaseProgress:
    """A phase begins. The last three end the run; `sentence`, `hint` and `exit_code` say how."""

    phase: Phase
    sentence: str = ""
    hint: str = ""
    exit_code: int = 0


Event = SiteProgress | RoundProgress | PhaseProgress
_KINDS: Mapping[str, type[Any]] = {"site": SiteProgress, "round": RoundProgress, "phase": PhaseProgress}


class Progress:
    """Appends events to a run's folder. They are for people and not synced: what counts is in the checkpoint.

    Args:
        folder: Run folder; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROGRESS_NAME

    def tell(self, event: Event) -> None:
        """Append one event."""
        kind = next(name for name, known in _KINDS.items() if isinstance(event, known))
        line = json.dumps({"event": kind, **asdict(event)}, ensure_ascii=False).encode("utf-8") + b"\n"
        with self._path.open("ab+") as stream:
            stream.write(line if _ends_whole(stream) else b"\n" + line)


def _ends_whole(stream: BinaryIO) -> bool:
    """Whether no crash has torn the last line: what comes after it would be lost with it."""
    if stream.seek(0, os.SEEK_END) == 0:
        return True
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"


def read_progress(folder: Path, start: int = 0) -> tuple[list[Event], int]:
    """Events from a byte position on, and the position after the last whole line; none where there is no file."""
    try:
        with (folder / PROGRESS_NAME).open("rb") as stream:
            stream.seek(start)
            content = stream.read()
    except FileNotFoundError:
        return [], start
    whole = content[: content.rfind(b"\n") + 1]
    return list(_events(whole)), start + len(whole)


def _events(lines: bytes) -> Iterator[Event]:
    """A line that cannot be read was torn by a crash, and costs a line on a screen."""
    for line in lines.splitlines():
        try:
            values = json.loads(line)
            kind = _KINDS[values.pop("event")]
            yield kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
