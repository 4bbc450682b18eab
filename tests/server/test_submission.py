import os
from datetime import timedelta

import pytest

from common.enrolment import write_join_request
from common.errors import CloisterError, ConfigError, DeadlineError, TransportError, TryAgainError, UsageError
from server.config import load_coordinator_config
from server.enrolment import enrol, enrolled, withdraw
from server.progress import PhaseProgress, Progress
from server.run_files import LOCK_NAME, RESULTS_NAME, SUBMISSION_NAME
from server.runs import Submission, run_of, standing_of
from server.signed_plans import issue_plan, prepare_folder
from server.submission import end_run, goes_on, is_wanted, refuse_without_service, submit
from tests.enrolment_play import NOW, make_coordinator, make_join_request
from tests.held_lock import held
from tests.plans import make_plan


class PlayedControl:
    """Takes every run, and says of the last what it is told to say."""

    def __init__(self):
        self.started, self.stopped, self.status = [], [], "running"

    def start_run(self, config):
        self.started.append(config)
        return len(self.started)

    def run_status(self, run_id):
        return self.status

    def stop_run(self, run_id):
        self.stopped.append(run_id)
        return run_id <= len(self.started)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("server.submission.current_moment", lambda: NOW)
    home = make_coordinator(tmp_path)
    enrol(home, write_join_request(make_join_request("north")))
    return home


@pytest.fixture
def control():
    return PlayedControl()


def issue(home, **changes):
    roster = {site.name: site.public for site in enrolled(home)}
    plan = make_plan(sites=1, roster=roster, **changes)
    return issue_plan(home, load_coordinator_config(home.config), plan, NOW)


def start(home, control, signed, *, resume=False, enough=False):
    return submit(home, control, signed, resume=resume, enough=enough)


def old(run):
    """As if it had been submitted long ago."""
    os.utime(run.folder / SUBMISSION_NAME, (0, 0))


def test_what_is_handed_over_is_home_plan_and_the_two_wishes(home, control):
    signed = issue(home)
    run = start(home, control, signed, resume=True, enough=True)
    assert control.started == [{"home": str(home.path), "plan": signed.digest, "resume": "yes", "enough": "yes"}]
    assert run.submission == Submission(1, 0)


def test_events_of_an_earlier_attempt_are_passed_over(home, control):
    signed = issue(home)
    run = start(home, control, signed)
    Progress(run.folder).tell(PhaseProgress("failed"))
    control.status = "finished:failed"
    run = start(home, control, signed, resume=True)
    assert run.submission == Submission(2, (run.folder / "progress.jsonl").stat().st_size)


def test_a_run_that_goes_on_is_not_started_twice(home, control):
    signed = issue(home)
    run = start(home, control, signed)
    assert goes_on(run, control)  # it is about to begin
    start(home, control, signed)
    with held(run.folder / LOCK_NAME):
        old(run)
        start(home, control, signed, resume=True)
    assert len(control.started) == 1


@pytest.mark.parametrize("sign", ["event", "age", "status"])
def test_a_dead_run_is_started_anew_and_its_leftover_ended(home, control, sign):
    signed = issue(home)
    run = start(home, control, signed)
    if sign == "event":
        Progress(run.folder).tell(PhaseProgress("training"))
    elif sign == "age":
        old(run)
    else:
        control.status = "finished:failed"
    start(home, control, signed, resume=True)
    assert len(control.started) == 2
    assert control.stopped == ([] if sign == "status" else [1])


def test_another_run_that_goes_on_is_waited_for(home, control):
    other = start(home, control, issue(home))
    with held(other.folder / LOCK_NAME), pytest.raises(TryAgainError, match=other.name):
        start(home, control, issue(home, rounds=3))


def test_a_plan_runs_once(home, control):
    signed = issue(home)
    folder = prepare_folder(home, signed, resume=False)
    (folder / RESULTS_NAME).write_text("{}")
    with pytest.raises(UsageError, match="a plan runs once"):
        start(home, control, signed, resume=True)
    assert control.started == []


def test_a_plan_that_is_over_is_not_submitted(home, control, monkeypatch):
    signed = issue(home)
    monkeypatch.setattr("server.submission.current_moment", lambda: NOW + timedelta(days=91))
    with pytest.raises(ConfigError, match="was valid until"):
        start(home, control, signed)


def test_a_site_that_was_withdrawn_stops_the_plan_before_anything_is_sent(home, control):
    signed = issue(home)
    withdraw(home, "north")
    with pytest.raises(ConfigError, match="north"):
        start(home, control, signed)
    assert control.started == []


def test_ending_a_run_tells_it(home, control):
    run = start(home, control, issue(home))
    end_run(run, control)
    assert control.stopped == [1]
    assert standing_of(run).phase == PhaseProgress("stopped")


def test_a_run_that_told_its_own_end_is_not_called_stopped(home, control):
    run = start(home, control, issue(home))
    Progress(run.folder).tell(PhaseProgress("finished"))
    end_run(run, control)
    assert standing_of(run).phase == PhaseProgress("finished")


def test_a_run_that_does_not_end_is_a_timeout(home, control, monkeypatch):
    run = start(home, control, issue(home))
    moments = iter(range(100))
    monkeypatch.setattr("server.submission.time.monotonic", lambda: next(moments))
    with held(run.folder / LOCK_NAME), pytest.raises(DeadlineError):
        end_run(run, control, pause=lambda _: None)
    assert standing_of(run).phase is None


def test_a_process_that_starts_after_the_stop_does_nothing(home, control):
    run = start(home, control, issue(home))
    assert is_wanted(run, 1)
    assert not is_wanted(run, 2)  # of an earlier attempt
    end_run(run, control)
    assert not is_wanted(run, 1)
    assert not goes_on(run, control)
    start(home, control, run.signed, resume=True)
    assert is_wanted(run, 2)


def test_a_run_that_nobody_submitted_by_command_is_wanted(home, control):
    signed = issue(home)
    prepare_folder(home, signed, resume=False)
    assert is_wanted(run_of(home, signed), 5)


def test_nothing_to_end_is_an_error(home, control):
    signed = issue(home)
    prepare_folder(home, signed, resume=False)
    with pytest.raises(CloisterError, match="knows no run"):
        end_run(run_of(home, signed), control)


def test_without_the_service_there_is_no_run(home):
    with pytest.raises(TransportError, match="not running"):
        refuse_without_service(home)
    with held(home.lock):
        refuse_without_service(home)
