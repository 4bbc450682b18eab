import math
import os

import pytest

from common.errors import UsageError
from server.config import load_coordinator_config
from server.progress import PhaseProgress, Progress, RoundProgress, SiteProgress
from server.run_files import LOCK_NAME, RESULTS_NAME
from server.runs import Submission, current_run, find_run, run_of, runs_of, standing_of
from server.signed_plans import issue_plan, prepare_folder
from tests.enrolment_play import NOW, make_coordinator
from tests.held_lock import held
from tests.plans import make_plan


@pytest.fixture
def home(tmp_path):
    return make_coordinator(tmp_path)


def begin(home, **changes):
    signed = issue_plan(home, load_coordinator_config(home.config), make_plan(**changes), NOW)
    prepare_folder(home, signed, resume=False)
    return run_of(home, signed)


def test_a_run_is_conducted_while_a_process_holds_its_lock(home):
    run = begin(home)
    assert not run.is_conducted
    with held(run.folder / LOCK_NAME):
        assert run.is_conducted
        assert current_run(home) == run
    assert not run.is_conducted
    assert current_run(home) is None


def test_a_submission_is_kept(home):
    run = begin(home)
    assert run.submission is None
    assert run.seconds_since_submission == math.inf
    run.note_submission(Submission(7, 120))
    assert run.submission == Submission(7, 120)
    assert run.seconds_since_submission < 60


def test_runs_are_found_by_name_plan_and_digest_and_else_the_last(home):
    first, second = begin(home, name="one"), begin(home, name="two")
    os.utime(first.folder / "signed-plan.json", ns=(0, 0))
    assert runs_of(home) == (second, first)
    assert find_run(home, None) == second
    for text in ("one", first.name, first.signed.digest[:12], first.signed.digest):
        assert find_run(home, text) == first


@pytest.mark.parametrize("text", ["", "three", "../one"])
def test_an_unknown_run_names_those_that_there_are(home, text):
    run = begin(home, name="one")
    with pytest.raises(UsageError) as caught:
        find_run(home, text)
    assert run.name in caught.value.hint


def test_without_any_run_the_hint_says_how_to_start_one(home):
    with pytest.raises(UsageError, match="no run yet"):
        find_run(home, None)


def test_a_result_makes_it_finished(home):
    run = begin(home)
    assert not run.is_finished
    (run.folder / RESULTS_NAME).write_text("{}")
    assert run.is_finished


def test_the_standing_is_the_last_of_each(home):
    run = begin(home)
    progress = Progress(run.folder)
    assert standing_of(run).phase is None
    for state in ("silent", "ready"):
        progress.tell(SiteProgress("north", state))
    progress.tell(PhaseProgress("training"))
    for number in (1, 2):
        progress.tell(RoundProgress(number, 3, 0.5, 1.0))
    standing = standing_of(run)
    assert (standing.phase.phase, standing.sites["north"].state) == ("training", "ready")
    assert standing.last_round.round_number == 2
