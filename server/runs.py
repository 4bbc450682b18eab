"""The run folders of a coordinator's home: which there are, how far each came, and whether one goes on right now."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UsageError
from common.file_lock import holder
from common.files import write_durably
from common.private_files import PRIVATE_FILE
from common.signed_plan import SignedPlan, read_signed_plan
from server.home import CoordinatorHome
from server.progress import PhaseProgress, RoundProgress, SiteProgress, read_progress
from server.run_files import LOCK_NAME, RESULTS_NAME, SIGNED_PLAN_NAME, SUBMISSION_NAME

ENDS = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class Submission:
    """What was handed to the SuperLink.

    Attributes:
        run_id: Flower's number of the run; 0 where it was stopped.
        progress_from: Where the events of this attempt begin in the run's progress, in bytes.
    """

    run_id: int
    progress_from: int


@dataclass(frozen=True)
class Run:
    """One plan's run.

    Attributes:
        folder: Where everything about it lies.
        signed: The plan.
    """

    folder: Path
    signed: SignedPlan

    @property
    def name(self) -> str:
        """NAME and the beginning of the digest, as the folder is called."""
        return self.folder.name

    @property
    def is_finished(self) -> bool:
        """Whether there is a result."""
        return (self.folder / RESULTS_NAME).is_file()

    @property
    def is_conducted(self) -> bool:
        """Whether a process conducts it right now; the lock ends with that process, however it ends."""
        return holder(self.folder / LOCK_NAME) is not None

    @property
    def submission(self) -> Submission | None:
        """What was last handed to the SuperLink; None where nothing was."""
        try:
            return Submission(**json.loads((self.folder / SUBMISSION_NAME).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @property
    def seconds_since_submission(self) -> float:
        """How long ago that was, by the machine's clock; infinite where nothing was."""
        try:
            return time.time() - (self.folder / SUBMISSION_NAME).stat().st_mtime
        except FileNotFoundError:
            return math.inf

    def forget_submission(self) -> None:
        """There is a new attempt, whose number is not known yet."""
        (self.folder / SUBMISSION_NAME).unlink(missing_ok=True)

    def note_submission(self, submission: Submission) -> None:
        """Keep it for `status` and `stop`."""
        text = json.dumps({"run_id": submission.run_id, "progress_from": submission.progress_from})
        write_durably(self.folder / SUBMISSION_NAME, text.encode("ascii"), mode=PRIVATE_FILE)


@dataclass(frozen=True)
class Standing:
    """How far a run has come, from its events.

    Attributes:
        phase: The last that began; None before the first.
        sites: Where each site stood before the first round.
        last_round: The last finished round; None before the first.
    """

    phase: PhaseProgress | None = None
    sites: dict[str, SiteProgress] = field(default_factory=dict)
    last_round: RoundProgress | None = None


def standing_of(run: Run) -> Standing:
    """How far a run has come."""
    phase, last = None, None
    sites: dict[str, SiteProgress] = {}
    for event in read_progress(run.folder)[0]:
        if isinstance(event, PhaseProgress):
            phase = event
            # Another attempt asks every site anew: what one said to the attempt before is no news.
            sites = {} if event.phase in ("preparing", "gathering") else sites
        elif isinstance(event, SiteProgress):
            sites[event.site] = event
        else:
            last = event
    return Standing(phase, sites, last)


def run_of(home: CoordinatorHome, signed: SignedPlan) -> Run:
    """The run of a plan, whether or not it has begun."""
    return Run(home.run(signed.plan.name, signed.digest), signed)


def runs_of(home: CoordinatorHome) -> tuple[Run, ...]:
    """Every run, the one that was last worked on first."""
    kept = list(home.runs.glob(f"[!.]*/{SIGNED_PLAN_NAME}"))
    newest = sorted(kept, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return tuple(Run(path.parent, read_signed_plan(path.read_bytes())) for path in newest)


def find_run(home: CoordinatorHome, text: str | None) -> Run:
    """A run by its folder's name, its plan's name, or the beginning of its plan's digest; the last one for None.

    Raises:
        UsageError: When there is none, or several fit.
    """
    runs = runs_of(home)
    if text is None:
        fitting = runs[:1]
    else:
        fitting = tuple(
            run
            for run in runs
            if text in (run.name, run.signed.plan.name) or (text and run.signed.digest.startswith(text))
        )
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(run.name for run in runs)
    if not known:
        raise UsageError("there is no run yet", hint="`cloister-coordinator run PLAN` starts one")
    rule = "more than one run is" if fitting else "no run is"
    raise UsageError(f"{rule} called {text!r}", hint=f"runs: {known}")


def current_run(home: CoordinatorHome) -> Run | None:
    """The run that goes on right now; None where none does."""
    return next((run for run in runs_of(home) if run.is_conducted), None)
