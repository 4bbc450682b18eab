"""The node as a process of its own, with a link that leads nowhere; a real SuperLink is in tests/end_to_end."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.keys import site_identity
from client.node_process import running_node
from client.status import read_status
from common.audit import verify_audit
from common.audit_events import AdminCommand, Paused, Resumed, Started, Stopped
from common.identity import public_name
from tests.site_commands import Play

ROOT = Path(__file__).parents[3]

# In place of client.app and client.link, so that neither Flower nor a network is needed.
NODE = """
import sys, types
from common.errors import TransportError

class Link:
    def connect(self):
        if MODE == "away":
            raise TransportError("nobody is there", hint="wait")
    def heartbeat(self): pass
    def receive(self): return None
    def reply(self, delivery, envelope): pass
    def close(self): pass

MODE = sys.argv.pop(1)
app, link = types.ModuleType("client.app"), types.ModuleType("client.link")
app.HEARTBEAT_SECONDS, link.open_link = 30.0, lambda home, pinned, network: Link()
sys.modules |= {"client.app": app, "client.link": link}
from client.cli import main
main()
"""


@pytest.fixture
def start(joined: Play):
    """Starts nodes, and sees to it that none is left."""
    processes = []

    def run(mode: str = "there", *words: str) -> subprocess.Popen:
        argv = [sys.executable, "-c", NODE, mode, "start", "--home", str(joined.site.path), *words]
        process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def until(play: Play, doing: str) -> None:
    end = time.monotonic() + 30
    while True:
        status = read_status(play.site.status)
        if status is not None and status.doing == doing and running_node(play.site):
            return
        assert time.monotonic() < end, f"not {doing}, but {status}"
        time.sleep(0.02)


def events(play: Play) -> list:
    public = public_name(site_identity(play.site))
    return [entry.event for entry in verify_audit(play.site.audit, play.site.audit_anchor, public).entries]


def test_a_node_runs_until_stop_and_writes_both_down(joined: Play, start) -> None:
    process = start()
    until(joined, "waiting")
    assert joined("status").out.count(f"process {process.pid}") == 1
    begun = time.monotonic()
    ended = joined("stop")
    assert (ended.code, f"process {process.pid}" in ended.err) == (0, True)
    assert time.monotonic() - begun < 5
    assert process.wait(timeout=5) == 0
    assert read_status(joined.site.status).doing == "stopped"
    told = [event for event in events(joined) if isinstance(event, Started | Stopped)]
    assert [type(event) for event in told] == [Started, Stopped]
    assert told[1].reason == "signal"
    assert AdminCommand(command="stop", by=events(joined)[-1].by) == events(joined)[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(joined: Play, start, number: signal.Signals) -> None:
    process = start()
    until(joined, "waiting")
    process.send_signal(number)
    out, err = process.communicate(timeout=5)
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err
    assert isinstance(events(joined)[-1], Stopped)


def test_a_pause_closes_the_books_and_resume_opens_them(joined: Play, start) -> None:
    process = start()
    until(joined, "waiting")
    assert joined("pause").code == 0
    assert read_status(joined.site.status).doing == "paused"
    assert "paused" in joined("status").out
    with joined.site.ledger.with_name("ledger.sqlite.lock").open("rb") as lock:  # free while it is paused
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    time.sleep(4.5)  # longer than a pause may take: the process must have got over it
    assert process.poll() is None
    assert joined("resume").code == 0
    until(joined, "waiting")
    assert joined("stop").code == 0
    told = [type(event) for event in events(joined) if isinstance(event, Started | Stopped | Paused | Resumed)]
    assert told == [Started, Paused, Resumed, Stopped]


def test_a_paused_node_stops_too_and_starts_paused(joined: Play, start) -> None:
    assert "starts paused" in joined("pause").err
    process = start()
    until(joined, "paused")
    assert joined("stop").code == 0
    assert process.wait(timeout=5) == 0
    assert joined.site.paused.exists()


def test_a_second_node_is_refused(joined: Play, start) -> None:
    first = start()
    until(joined, "waiting")
    second = start()
    _, err = second.communicate(timeout=30)
    assert second.returncode == 75
    assert f"process {first.pid}" in err
    assert first.poll() is None


def test_a_killed_node_is_gone_and_the_next_one_starts(joined: Play, start) -> None:
    process = start()
    until(joined, "waiting")
    process.kill()
    process.wait(timeout=5)
    assert "ended without a word" in joined("status").out
    assert "no node was running" in joined("stop").err
    start()
    until(joined, "waiting")


def test_a_coordinator_that_is_not_reached_is_exit_4(joined: Play, start) -> None:
    process = start("away", "--wait", "0.3")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "error: nobody is there\n" in err
    assert "hint: wait\n" in err


def test_a_paused_site_waits_for_good_whatever_wait_says(joined: Play, start) -> None:
    joined("pause")
    process = start("away", "--wait", "0.1")
    until(joined, "paused")
    time.sleep(0.5)
    assert process.poll() is None
    assert joined("stop").code == 0
    assert "A paused site waits" in " ".join(joined("start", "--help").out.replace("│", " ").split())


def test_without_wait_it_keeps_trying(joined: Play, start) -> None:
    process = start("away")
    until(joined, "connecting")
    time.sleep(0.5)
    assert process.poll() is None
    assert joined("stop").code == 0


def test_logs_as_json_are_one_object_a_line(joined: Play, start) -> None:
    process = start("there", "--json-logs")
    until(joined, "waiting")
    joined("stop")
    _, err = process.communicate(timeout=5)
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines][-1] == "stopped"
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)


def test_pause_and_resume_without_a_node(joined: Play) -> None:
    assert joined("resume").code == 2
    assert joined("pause", "--dry-run").code == 0
    assert not joined.site.paused.exists()
    assert joined("pause").code == 0
    assert joined("pause").code == 0
    assert joined("resume", "--dry-run").code == 0
    assert joined.site.paused.exists()
    assert joined("resume").code == 0
    assert [type(event) for event in events(joined)][-2:] == [Paused, Resumed]


def test_stop_ends_no_stranger(joined: Play) -> None:
    """A process id from before, of a process that is somebody else's now, must not be ended."""
    joined.site.lock.write_text(f"{os.getpid()}\n")
    assert "no node was running" in joined("stop").err
