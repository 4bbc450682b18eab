"""What ends with what; tests/end_to_end/test_real_crashes.py kills the real thing."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import ConfigError
from server import superlink
from server.home import CoordinatorHome
from server.initialise import initialise
from server.superlink import SuperLink, last_words

SERVICE = """
import subprocess, sys, time
from server.superlink import _bound_to_this_process
sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
print(subprocess.Popen([*_bound_to_this_process(), *sleeper]).pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    home = CoordinatorHome(tmp_path / "home")
    initialise(home, "tiny", "127.0.0.1:9443")
    return home


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_gone(pid: int) -> bool:
    """Within five seconds; a process that ended and that nobody has asked about is gone, too."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is ended at the next start")
def test_it_ends_with_a_service_that_is_killed() -> None:
    root = Path(superlink.__file__).parents[1]
    service = subprocess.Popen([sys.executable, "-c", SERVICE], cwd=root, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    pid = int(service.stdout.readline())
    time.sleep(0.5)
    os.kill(pid, 0)
    service.send_signal(signal.SIGKILL)
    service.wait()
    service.stdout.close()
    assert is_gone(pid)


def fake(monkeypatch: pytest.MonkeyPatch, home: CoordinatorHome, code: str) -> None:
    line = [sys.executable, "-c", code, str(home.superlink_database)]
    monkeypatch.setattr(superlink, "_command", lambda *_: line)


def test_stop_ends_it_and_what_it_started(monkeypatch: pytest.MonkeyPatch, home: CoordinatorHome) -> None:
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True).pid"
    fake(monkeypatch, home, f"import subprocess, sys, time; print({child}, flush=True); time.sleep(60)")
    with SuperLink(home, free_port()) as running:
        while not last_words(home):
            time.sleep(0.01)
        pids = (running.pid, int(last_words(home)))
        assert running.exit_code is None
    assert all(is_gone(pid) for pid in pids)
    running.stop()


def test_one_that_was_left_behind_is_ended_first(monkeypatch: pytest.MonkeyPatch, home: CoordinatorHome) -> None:
    fake(monkeypatch, home, "import time; print('here', flush=True); time.sleep(60)")
    first = SuperLink(home, free_port())
    while not last_words(home):  # a process that has only just begun does not bear its own name yet
        time.sleep(0.01)
    with SuperLink(home, free_port()) as second:
        assert is_gone(first.pid)
        assert second.exit_code is None
    first.stop()


def test_a_port_that_is_taken_is_one_sentence(home: CoordinatorHome) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="is taken by another process"):
            SuperLink(home, taken.getsockname()[1])
