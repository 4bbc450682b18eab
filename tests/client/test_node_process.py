"""What other commands see of a node's process; the commands themselves are in tests/client/commands/test_node.py."""

import os
import threading
import time

import pytest

from client import node_process
from client.home import SiteHome
from client.node_process import pause_node, resume_node, running_node, stop_node
from client.status import StatusBoard
from common.errors import DeadlineError, TryAgainError, UsageError
from common.file_lock import alone


@pytest.fixture
def home(tmp_path, monkeypatch) -> SiteHome:
    monkeypatch.setattr(node_process, "STOP_SECONDS", 0.3)
    return SiteHome(tmp_path)


def test_a_node_runs_as_long_as_its_lock_is_held(home: SiteHome) -> None:
    assert running_node(home) is None
    with alone(home.lock):
        assert running_node(home) == os.getpid()
        assert running_node(home) == os.getpid()
    assert running_node(home) is None
    assert home.lock.exists()


def test_looking_takes_no_lock(home: SiteHome) -> None:
    with alone(home.lock):
        pass
    running_node(home)
    with alone(home.lock):
        assert running_node(home) == os.getpid()


def test_stop_waits_until_the_process_is_gone(home: SiteHome, monkeypatch) -> None:
    held, told = threading.Event(), []

    def hold() -> None:
        with alone(home.lock):
            held.set()
            while not told:
                time.sleep(0.01)
            time.sleep(0.1)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    monkeypatch.setattr(os, "kill", lambda process, number: told.append(process))
    assert stop_node(home) == os.getpid() == told[0]
    assert running_node(home) is None
    thread.join()
    assert stop_node(home) is None


def test_a_node_that_does_not_stop_is_told_of(home: SiteHome, monkeypatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with alone(home.lock), pytest.raises(DeadlineError, match="still there") as error:
        stop_node(home)
    assert f"kill -9 {os.getpid()}" in error.value.hint


def test_a_node_that_has_not_said_who_it_is_is_not_signalled(home: SiteHome, monkeypatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("somebody was signalled"))
    with alone(home.lock):
        home.lock.write_bytes(b"")
        with pytest.raises(TryAgainError):
            stop_node(home)


def test_a_pause_lasts_until_it_is_ended(home: SiteHome) -> None:
    assert pause_node(home)
    assert not pause_node(home)
    resume_node(home)
    assert not home.paused.exists()
    with pytest.raises(UsageError):
        resume_node(home)


def test_a_running_node_must_say_that_it_paused(home: SiteHome) -> None:
    board = StatusBoard(home.status)
    with alone(home.lock):
        board.show("working")
        with pytest.raises(DeadlineError):
            pause_node(home)
        board.show("paused")
        assert not pause_node(home)
