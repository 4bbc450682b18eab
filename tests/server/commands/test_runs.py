"""run, stop, report and export as text, over a SuperLink that is played."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.progress import PhaseProgress, RoundProgress, SiteProgress
from server.run_files import LOCK_NAME
from server.runs import run_of
from server.signed_plans import prepare_folder
from tests.held_lock import held

RESULTS = {
    "privacy": {"delta": 1e-5, "unit": "patient", "sites": [{"epsilon": 3.25}]},
    "totals": {"rounds": 2, "rounds_planned": 2, "seconds": 12.3},
    "validation": None,
    "test": {"loss": 0.5, "metrics": {"auc": 0.9, "f1": None}, "rows": 3},
}


@pytest.fixture
def finish(superlink):
    """Leave a result behind, as a run does before it tells its end."""

    def leave():
        folder = superlink.run.folder
        folder.mkdir(exist_ok=True)
        (folder / "results.json").write_text(json.dumps(RESULTS))
        (folder / "model-card.md").write_text("# A card\n")
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}")

    return leave


def test_a_run_is_followed_to_its_result(cli, home, signed, superlink, finish):
    superlink.then = finish
    superlink.tells = (
        PhaseProgress("gathering"),
        SiteProgress("west", "waiting", ("not-approved",)),
        PhaseProgress("training"),
        RoundProgress(1, 3, 1.5, 0.4),
        PhaseProgress("finished"),
    )
    done = cli("run", signed.digest[:8], "--enough")
    assert done.code == 0, done.err
    assert superlink.started[0]["enough"] == "yes"
    assert superlink.started[0]["resume"] == "no"
    assert "west: waits: nobody at this site has approved the plan yet\n" in done.err
    assert "round 1/2  sites 3/3  ε 1.50  0.4 s\n" in done.err
    assert f"adapter  {superlink.run.folder / 'adapter'}\n" in done.out
    assert "ε = 3.25 at δ = 1e-05 for each patient; 2 of 2 rounds in 12 s" in done.out
    assert "test     loss 0.5000  auc 0.9000\n" in done.out


@pytest.mark.parametrize("code", [1, 10, 15, 16])
def test_a_run_that_failed_leaves_its_own_sentence_hint_and_code(cli, signed, superlink, code):
    superlink.tells = (PhaseProgress("failed", "2 sites are ready, and the plan needs 3", "approve it", code),)
    done = cli("run", signed.digest)
    assert (done.code, done.out) == (code, "")
    again = f"`cloister-coordinator run {signed.digest[:8]} --resume` goes on"
    assert done.err.endswith(f"error: 2 sites are ready, and the plan needs 3\nhint: approve it; then {again}\n")


def test_a_run_whose_files_do_not_fit_is_not_simply_resumed(cli, signed, superlink):
    superlink.tells = (PhaseProgress("failed", "the data cannot be used: 1 problem: rows.csv: has no rows", "fill", 3),)
    done = cli("run", signed.digest)
    assert done.code == 3
    assert "1 problem: rows.csv: has no rows\nhint: fill; once that is mended on this machine" in done.err
    assert "rows.csv: has no rows" in cli("status").out


def test_a_run_that_died_says_how_to_go_on(cli, signed, superlink):
    superlink.tells, superlink.status = (PhaseProgress("training"),), "finished:failed: killed"
    done = cli("run", signed.digest)
    assert done.code == 1
    assert "killed" in done.err
    assert f"run {signed.digest[:8]} --resume" in done.err


def test_ctrl_c_detaches(cli, signed, superlink, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("server.commands.runs.follow", interrupt)
    done = cli("run", signed.digest)
    assert done.code == 130
    assert "goes on without you" in done.err
    assert "`cloister-coordinator stop` ends it" in done.err
    assert superlink.stopped == []


def test_detach_returns_at_once(cli, signed, superlink):
    done = cli("run", signed.digest, "--detach")
    assert (done.code, done.out) == (0, "")
    assert len(superlink.started) == 1
    assert "goes on already" in cli("run", signed.digest, "--detach").err
    assert len(superlink.started) == 1


def test_without_the_service_a_run_is_a_connection_error(cli, signed):
    done = cli("run", signed.digest)
    assert done.code == 4
    assert "cloister-coordinator start" in done.err


def test_a_stopped_run_ends_those_who_follow_it(cli, signed, superlink):
    superlink.tells = (PhaseProgress("stopped"),)
    done = cli("run", signed.digest)
    assert done.code == 1
    assert "was stopped" in done.err


# --- stop ------------------------------------------------------------------------------------------------------------


def test_stop_ends_the_run_that_goes_on_and_writes_it_down(cli, home, signed, superlink):
    cli("run", signed.digest, "--detach")
    assert "would stop" in cli("stop", "--dry-run").err
    assert superlink.stopped == []
    done = cli("stop")
    assert done.code == 0, done.err
    assert superlink.stopped == [7]
    events = json.loads(cli("verify", "--json").out)["events"]
    assert events["run-ended"] == 1


def test_a_stop_that_finds_nothing_to_stop_is_done(cli, home, signed, superlink):
    done = cli("stop")
    assert (done.code, done.out, done.err) == (0, "", "no run goes on\n")
    cli("run", signed.digest, "--detach")
    cli("stop")
    superlink.run.forget_submission()
    done = cli("stop", signed.plan.name)
    assert (done.code, done.err) == (0, f"{superlink.run.name} does not go on\n")
    assert superlink.stopped == [7]


@pytest.mark.parametrize(
    ("options", "told"), [((), "no run goes on: the service is not running"), (("--service",), "no service runs")]
)
def test_without_a_service_there_is_nothing_to_stop(cli, signed, options, told):
    done = cli("stop", *options)
    assert (done.code, done.err) == (0, f"{told}\n")


def test_a_run_that_nobody_knows_is_not_stopped_in_silence(cli, signed):
    assert cli("stop", "nosuch").code == 2


def test_a_run_that_outlives_its_service_is_not_told_to_be_over(cli, home, signed):
    run = run_of(home, signed)
    prepare_folder(home, signed, resume=False)
    with held(run.folder / LOCK_NAME):
        done = cli("stop")
    assert done.code == 4
    assert "the service is not running" in done.err


def test_a_name_and_service_together_are_refused(cli, signed):
    assert cli("stop", "test", "--service").code == 2


def test_stop_service_signals_the_process_that_holds_the_lock(cli, home, signed):
    script = (
        "import fcntl, os, sys, time\n"
        "handle = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)\n"
        "fcntl.flock(handle, fcntl.LOCK_EX)\n"
        "os.pwrite(handle, str(os.getpid()).encode(), 0)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(home.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            assert f"would end process {process.pid}" in cli("stop", "--service", "--dry-run").err
            assert process.poll() is None
            assert cli("stop", "--service").code == 0
            assert process.wait(5) == -signal.SIGTERM
        finally:
            process.kill()


# --- report and export -----------------------------------------------------------------------------------------------


@pytest.fixture
def finished(cli, home, signed, superlink, finish):
    superlink.tells, superlink.then = (PhaseProgress("finished"),), finish
    assert cli("run", signed.digest).code == 0
    return run_of(home, signed)


def test_report_shows_paths_cost_and_the_card(cli, finished):
    done = cli("report")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"adapter  {finished.folder}")
    assert done.out.endswith("\n# A card\n")
    assert json.loads(cli("report", finished.name, "--json").out) == RESULTS


def test_export_copies_and_never_overwrites(cli, finished, tmp_path):
    assert "would write adapter" in cli("export", "--output", "out", "--dry-run").err
    done = cli("export", "--output", "out")
    assert done.out.strip() == str(tmp_path / "out")
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").exists()
    assert (tmp_path / "out" / "signed-plan.json").exists()
    assert cli("export", "--output", "out").code == 2


def test_a_finished_plan_does_not_run_again(cli, signed, finished):
    done = cli("run", signed.digest, "--resume")
    assert done.code == 2
    assert "a plan runs once" in done.err


def test_report_without_a_result_says_where_to_look(cli, signed, superlink):
    cli("run", signed.digest, "--detach")
    done = cli("report")
    assert done.code == 2
    assert "no result yet" in done.err
    assert cli("export", "--output", "out").code == 2
    assert not Path("out").exists()
