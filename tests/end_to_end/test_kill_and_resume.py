"""A real process, killed by SIGKILL, and resumed by another: it ends, and its books are those of an undisturbed run."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import simulations.run
from client.charges import Charges
from common.plan import Plan
from server.checkpoint import CHECKPOINT_NAME, load_checkpoint
from server.report import is_finished
from simulations.run import start_run
from simulations.scenario import load_scenario
from tests.tiny_scenario import write_tiny_scenario

ROUNDS, STEPS = 30, 2
COMMAND = [sys.executable, "-c", "from simulations.cli import main; main()", "run"]
PATIENCE_SECONDS = 120

Moment = Callable[[Path], bool]


def begun(folder: Path) -> bool:
    return (folder / "sites" / ".begun").exists()


def charged(site: str, rounds: int) -> Moment:
    """The site's book holds that many rounds."""

    def reached(folder: Path) -> bool:
        book = folder / "sites" / site / "charges.book"
        return book.exists() and json.loads(book.read_bytes().partition(b"\n")[0])["rounds_charged"] >= rounds

    return reached


def saved(folder: Path) -> bool:
    return (folder / CHECKPOINT_NAME).exists()


def adapter_begun(folder: Path) -> bool:
    return (folder / ".adapter.partial").exists() or (folder / "adapter").exists()


def adapter_written(folder: Path) -> bool:
    return (folder / "adapter").exists()


def picture_written(folder: Path) -> bool:
    return (folder / "learning-curve.png").exists()


@pytest.fixture
def scenario(tmp_path: Path, tiny_base: Path) -> Path:
    path = write_tiny_scenario(tmp_path, tiny_base)
    path.write_text(path.read_text().replace("rounds = 2\n", f"rounds = {ROUNDS}\n"))
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    root = Path(simulations.run.__file__).parents[1]
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def killed_at(moment: Moment, runs: Path, *arguments: object) -> Path:
    """Start the command, kill it as soon as the moment has come, and return the run's folder."""
    with start(*arguments) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(map(moment, folders(runs))):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        process.kill()
        assert process.wait() == -9
    (folder,) = folders(runs)
    return folder


def folders(runs: Path) -> list[Path]:
    return list(runs.iterdir()) if runs.is_dir() else []


def finish(folder: Path) -> str:
    with start("--resume", folder) as process:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    return out


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_bytes())


def assert_like_an_undisturbed_run(folder: Path, scenario: Path) -> None:
    document = json.loads((folder / "plan.json").read_bytes())
    plan = Plan.model_validate(document["plan"])
    assert plan.digest == document["digest"]
    for site in ("hospital-1", "hospital-2"):
        book = Charges(folder / "sites" / site, plan, site, must_exist=True)
        assert (book.steps_charged, book.last_round) == (ROUNDS * STEPS, ROUNDS)
    saved_state = load_checkpoint(folder, plan.digest)
    assert saved_state is not None
    assert saved_state.round_number == ROUNDS
    results = results_of(folder)
    assert [summary["round_number"] for summary in results["rounds"]] == list(range(1, ROUNDS + 1))
    assert {summary["survivors"] for summary in results["rounds"]} == {2}
    undisturbed = start_run(load_scenario(scenario, [f"output={scenario.parent / 'whole'}"]), silent())
    whole = results_of(undisturbed.folder)
    assert results["plan_digest"] == whole["plan_digest"]
    assert results["privacy"] == whole["privacy"]
    assert results["privacy"]["sites"][0]["epsilon"] > 0
    assert visible(folder) == visible(undisturbed.folder)


def visible(folder: Path) -> list[str]:
    """Everything but hidden files: a kill within a write may leave its unnamed first half, which nothing reads."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith("."))


def silent() -> Console:
    return Console(file=io.StringIO())


def test_a_run_killed_twice_ends_like_one_that_was_never_killed(scenario: Path, tmp_path: Path) -> None:
    folder = killed_at(charged("hospital-1", 1), tmp_path / "runs", scenario)
    assert not is_finished(folder)
    assert killed_at(charged("hospital-2", 8), tmp_path / "runs", "--resume", folder) == folder
    assert not is_finished(folder)
    assert saved(folder)
    out = finish(folder)
    assert f"folder:  {folder}" in out.splitlines()
    assert is_finished(folder)
    assert_like_an_undisturbed_run(folder, scenario)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        begun,
        charged("hospital-2", 1),
        saved,
        charged("hospital-1", 15),
        adapter_begun,
        adapter_written,
        picture_written,
    ],
    ids=["books", "charge", "checkpoint", "middle", "export begun", "adapter", "picture"],
)
def test_a_run_killed_at_any_moment_resumes(scenario: Path, tmp_path: Path, moment: Moment) -> None:
    folder = killed_at(moment, tmp_path / "runs", scenario)
    finish(folder)
    assert_like_an_undisturbed_run(folder, scenario)
