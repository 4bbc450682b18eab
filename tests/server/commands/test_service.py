"""start with a real SuperLink, and status as text."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from common.audit import read_audit
from common.audit_events import Started, Stopped
from common.identity import public_name
from common.key_files import read_identity
from common.processes import family_of
from server.progress import PhaseProgress, Progress, RoundProgress, SiteProgress
from server.run_files import LOCK_NAME, RESULTS_NAME
from server.runs import run_of
from server.service_status import ServiceStatus, read_status, write_status
from server.signed_plans import prepare_folder
from tests.held_lock import held

MAIN = "import sys; sys.argv[0] = 'cloister-coordinator'; from server.cli import main; main()"
READY_SECONDS = 60


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ports(home) -> tuple[int, int]:
    """The gateway's and the SuperLink's, both free and on loopback."""
    outside, inside = free_port(), free_port()
    text = home.config.read_text().replace("127.0.0.1:9443", f"127.0.0.1:{outside}")
    text = text.replace('# host = "0.0.0.0"', 'host = "127.0.0.1"').replace(
        "# superlink_port = 9092", f"superlink_port = {inside}"
    )
    home.config.write_text(text)
    return outside, inside


@pytest.fixture
def service(home, ports, tmp_path):
    """A service in a process of its own; ended by its own number, whatever the test does."""
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen([sys.executable, "-c", MAIN, "start"], stderr=err)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while "hospitals can connect" not in (tmp_path / "err").read_text():
            assert process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        for pid in family_of(process.pid) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        process.wait()


def events(home):
    return [
        entry.event
        for entry in read_audit(home.audit, home.audit_anchor, public_name(read_identity(home.identity_key))).entries
    ]


def test_it_serves_says_so_and_leaves_nothing_behind(cli, home, sites, ports, service, tmp_path):
    assert read_status(home).ready
    family = family_of(service.pid)
    assert len(family) >= 2
    done = cli("status")
    assert f"process {service.pid}" in done.out
    assert "3 enrolled, 0 connected" in done.out
    second = cli("start")
    assert second.code == 75
    assert f"runs already, as process {service.pid}" in second.err
    began = time.monotonic()
    service.send_signal(signal.SIGTERM)
    assert service.wait(10) == 0
    assert time.monotonic() - began < 20.0  # five seconds where nothing else runs; docs/coordinator-guide.md
    assert [pid for pid in family if is_running(pid)] == []
    assert read_status(home) is None
    recorded = [event for event in events(home) if isinstance(event, Started | Stopped)]
    assert [(type(event).__name__, getattr(event, "reason", None)) for event in recorded] == [
        ("Started", None),
        ("Stopped", "signal"),
    ]
    assert f"hospitals can connect to 127.0.0.1:{ports[0]}; 3 sites are enrolled" in (tmp_path / "err").read_text()


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than one that is only waiting to be counted."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:  # noqa: PTH123
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_port_that_is_taken_is_one_sentence_and_leaves_nothing(cli, home, sites, ports, which, monkeypatch):
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", ports[which]))
        other.listen()
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "start"], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode in (3, 4)
    assert done.stderr.count("error:") == 1
    assert str(ports[which]) in done.stderr
    assert "Traceback" not in done.stderr
    assert read_status(home) is None
    assert [event.reason for event in events(home) if isinstance(event, Stopped)] == ["failed"]


# --- status ----------------------------------------------------------------------------------------------------------


def begin(home, signed):
    return run_of(home, signed), Progress(prepare_folder(home, signed, resume=False))


def test_status_without_anything(cli, home):
    done = cli("status")
    assert (done.code, done.err) == (0, "")
    assert "not running; `cloister-coordinator start`" in done.out
    assert "run          none yet" in done.out


def test_status_tells_why_a_site_holds_the_run_up(cli, home, signed):
    run, progress = begin(home, signed)
    progress.tell(PhaseProgress("gathering"))
    progress.tell(SiteProgress("north", "ready"))
    progress.tell(SiteProgress("west", "refused", ("epsilon-too-high", "too-few-sites")))
    write_status(home, ServiceStatus(os.getpid(), "2026-11-21T15:00:00Z", True, {"north": True, "west": True}))
    with held(home.lock), held(run.folder / LOCK_NAME):
        done = cli("status")
        told = json.loads(cli("status", "--json").out)
    assert f"run          {run.name}: gathering\n" in done.out
    assert "west: refuses: the run costs more ε than this site allows a run; too few sites take part\n" in done.out
    assert "2 connected: north, west\n" in done.out
    assert "not connected: south\n" in done.out
    assert told["run"]["sites"]["west"]["codes"] == ["epsilon-too-high", "too-few-sites"]
    assert told["run"]["conducted"] is True
    assert told["sites"] == {"north": True, "south": False, "west": True}


def test_status_of_a_run_that_was_interrupted_failed_or_finished(cli, home, signed):
    run, progress = begin(home, signed)
    progress.tell(PhaseProgress("training"))
    progress.tell(RoundProgress(1, 3, 0.5, 1.0))
    assert f"interrupted while training; `run {signed.digest[:8]} --resume` goes on" in cli("status").out
    progress.tell(PhaseProgress("failed", "2 sites are ready", "approve it", 16))
    done = cli("status")
    assert "failed: 2 sites are ready" in done.out
    assert "hint: approve it" in done.out
    assert json.loads(cli("status", "--json").out)["run"]["exit_code"] == 16
    (run.folder / RESULTS_NAME).write_text("{}")
    assert "finished; `cloister-coordinator report`" in cli("status").out
