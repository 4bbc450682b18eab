"""Hand a plan to the SuperLink, see whether its run goes on, and end it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from common.errors import CloisterError, ConfigError, DeadlineError, TransportError, TryAgainError, UsageError
from common.moments import current_moment, moment_text
from common.signed_plan import SignedPlan
from server.following import Signs
from server.home import CoordinatorHome
from server.progress import PhaseProgress, Progress, read_progress
from server.runs import ENDS, Run, Submission, current_run, run_of
from server.service_status import service_process
from server.signed_plans import prepare_folder, sites_of

_FRESH_SECONDS = 60.0
"""So long after its submission, a run that has told nothing may still be starting."""
_STOP_SECONDS = 10.0
_STOPPED = 0


class RunControl(Protocol):
    """As much of `server.control.Control` as runs need."""

    def start_run(self, config: dict[str, str]) -> int:
        """Start one; gives its number."""
        ...

    def run_status(self, run_id: int) -> str:
        """How it stands; empty where there is none of that number."""
        ...

    def stop_run(self, run_id: int) -> bool:
        """End it; whether there was one to end."""
        ...


def refuse_without_service(home: CoordinatorHome) -> None:
    """A run needs the service.

    Raises:
        TransportError: When it does not run.
    """
    if service_process(home) is None:
        raise TransportError("the service is not running", hint="`cloister-coordinator start`, in another terminal")


def submit(home: CoordinatorHome, control: RunControl, signed: SignedPlan, *, resume: bool, enough: bool) -> Run:
    """Start a plan's run, or find that it goes on already.

    Args:
        home: Whose plan it is.
        control: The SuperLink's.
        signed: The plan.
        resume: Go on from the last finished round.
        enough: Begin as soon as enough sites are ready, without waiting for the rest.

    Raises:
        UsageError: When it has run already and `resume` is not set, or is finished.
        ConfigError: When the plan is no longer valid, or a site of its roster is not enrolled.
        TryAgainError: When another run goes on.
    """
    run = run_of(home, signed)
    if goes_on(run, control):
        return run
    _refuse_unfit(home, run)
    prepare_folder(home, signed, resume=resume)
    _end_leftover(run, control)
    _, start = read_progress(run.folder)
    config = {"home": str(home.path), "plan": signed.digest, "resume": _word(resume), "enough": _word(enough)}
    run.forget_submission()
    run.note_submission(Submission(control.start_run(config), start))
    return run


def is_wanted(run: Run, run_id: int) -> bool:
    """Whether a process that is about to conduct a run still should: it may have been stopped while it was starting."""
    submission = run.submission
    return submission is None or submission.run_id == run_id


def _refuse_unfit(home: CoordinatorHome, run: Run) -> None:
    if run.is_finished:
        raise UsageError(
            f"{run.name} has run to its end, and a plan runs once",
            hint=f"`cloister-coordinator report {run.name}` shows the result; for another run, sign another plan",
        )
    if not run.signed.is_valid_at(current_moment()):
        raise ConfigError(
            f"the plan was valid until {moment_text(run.signed.valid_until)}",
            hint="`cloister-coordinator plan check PLAN.toml --sign` signs it anew; the hospitals review it again",
        )
    other = current_run(home)
    if other is not None:
        raise TryAgainError(
            f"another run goes on: {other.name}", hint="wait for its end, or `cloister-coordinator stop` it"
        )
    sites_of(home, run.signed)


def goes_on(run: Run, control: RunControl) -> bool:
    """Whether a process conducts the run, or is about to."""
    submission = run.submission
    if run.is_conducted or submission is None or submission.run_id == _STOPPED:
        return run.is_conducted
    if read_progress(run.folder, submission.progress_from)[0] or run.seconds_since_submission > _FRESH_SECONDS:
        return False  # it had begun, and nobody conducts it any more; or it never began
    return _is_active(control.run_status(submission.run_id))


def _end_leftover(run: Run, control: RunControl) -> None:
    """Whatever a crash left in the SuperLink's database must not come to life again beside the new run."""
    submission = run.submission
    if submission is None or submission.run_id == _STOPPED:
        return
    if _is_active(control.run_status(submission.run_id)):
        control.stop_run(submission.run_id)


def _is_active(status: str) -> bool:
    return status != "" and not status.startswith("finished")


def _word(wanted: bool) -> str:
    return "yes" if wanted else "no"


def signs_of(home: CoordinatorHome, run: Run, control: RunControl) -> Signs:
    """Where a run's signs of life come from."""
    submission = run.submission

    def status() -> str:
        return "" if submission is None else control.run_status(submission.run_id)

    return Signs(lambda: service_process(home) is not None, status)


def end_run(run: Run, control: RunControl, pause: Callable[[float], None] = time.sleep) -> None:
    """Stop a run; it can be resumed.

    Raises:
        CloisterError: When the SuperLink does not know it.
        DeadlineError: When it has not ended within ten seconds.
    """
    submission = run.submission
    if submission is None or not control.stop_run(submission.run_id):
        raise CloisterError(f"the SuperLink knows no run {run.name} to stop", hint="`cloister-coordinator status`")
    run.note_submission(Submission(_STOPPED, submission.progress_from))
    deadline = time.monotonic() + _STOP_SECONDS
    while run.is_conducted:
        if time.monotonic() > deadline:
            hint = "`cloister-coordinator stop --service` ends it together with the service"
            raise DeadlineError(f"{run.name} has not ended within {_STOP_SECONDS:g} seconds", hint=hint)
        pause(0.1)
    events, _ = read_progress(run.folder, submission.progress_from)
    if not any(isinstance(event, PhaseProgress) and event.phase in ENDS for event in events):
        Progress(run.folder).tell(PhaseProgress("stopped"))
