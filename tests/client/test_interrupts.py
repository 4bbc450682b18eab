"""Real signals, in processes of their own: each script says what happened to it, and how long that took."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PREAMBLE = """
import os, signal, sys, threading, time
from pathlib import Path
import client.interrupts as interrupts
from client.interrupts import Interrupts, PauseRequestedError, StopRequestedError, leave
interrupts.GRACE_SECONDS = 0.8
paused = Path(sys.argv[1])

def say(what):
    print(what, flush=True)

def later(seconds, *numbers):
    def send():
        time.sleep(seconds)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.05)
    threading.Thread(target=send, daemon=True).start()
"""

# Compiled code that lets other threads run, and that no Python handler gets into before it returns: as a long call
# into torch does. 40 million rounds take ten seconds and more.
LONG_CALL = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 40_000_000)"


@dataclass(frozen=True)
class Ended:
    code: int
    said: list[str]
    seconds: float


@pytest.fixture
def play(tmp_path: Path):
    def run(script: str) -> Ended:
        begun = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-c", PREAMBLE + script, str(tmp_path / "paused")],
            capture_output=True, text=True, timeout=30, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert process.stderr == ""
        return Ended(process.returncode, process.stdout.split(), time.monotonic() - begun)

    return run


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_stop_ends_a_sleep_and_what_is_open_is_closed(play, number):
    ended = play(f"""
later(0.1, signal.{number})
try:
    with Interrupts(paused).raised():
        try:
            time.sleep(20)
        finally:
            say("closed")
except StopRequestedError:
    say("stopped")
    leave(0)
""")
    assert (ended.code, ended.said) == (0, ["closed", "stopped"])
    assert ended.seconds < 5


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGINT", 0), ("SIGUSR1", 75)])
def test_a_long_call_into_compiled_code_is_cut_off(play, number, code):
    ended = play(f"""
later(0.1, signal.{number})
with Interrupts(paused).raised():
    {LONG_CALL}
    say("never")
""")
    assert (ended.code, ended.said) == (code, [])
    assert ended.seconds < 8


def test_a_pause_file_during_a_long_call_cuts_it_off_too(play):
    ended = play(f"""
threading.Timer(0.2, paused.touch).start()
with Interrupts(paused).raised():
    {LONG_CALL}
""")
    assert ended.code == 75
    assert ended.seconds < 8


def test_a_closing_that_takes_too_long_is_cut_off(play):
    ended = play("""
later(0.1, signal.SIGTERM)
with Interrupts(paused).raised():
    try:
        time.sleep(20)
    finally:
        say("closing")
        time.sleep(20)
""")
    assert (ended.code, ended.said) == (0, ["closing"])
    assert ended.seconds < 8


def test_an_exception_that_is_lost_on_the_way_is_made_up_for(play):
    ended = play("""
later(0.1, signal.SIGTERM)
with Interrupts(paused).raised():
    try:
        time.sleep(20)
    except StopRequestedError:
        say("lost")
    time.sleep(20)
""")
    assert (ended.code, ended.said) == (0, ["lost"])
    assert ended.seconds < 8


def test_pause_and_resume_as_often_as_one_likes(play):
    ended = play("""
inner, outer = Interrupts(paused), Interrupts(None)
with outer.raised():
    for turn in range(3):
        threading.Timer(0.1, paused.touch).start()
        try:
            with inner.raised():
                time.sleep(20)
        except PauseRequestedError:
            say("paused")
            inner.settle()
        paused.unlink()
    time.sleep(1.2)  # longer than the grace: no countdown is left
    say("on")
    later(0.1, signal.SIGTERM)
    try:
        time.sleep(20)
    except StopRequestedError:
        say("stopped")
        outer.settle()
time.sleep(1.2)
say("still")
""")
    assert (ended.code, ended.said) == (0, ["paused", "paused", "paused", "on", "stopped", "still"])


def test_a_pause_that_was_there_before_is_seen(play):
    ended = play("""
paused.touch()
try:
    with Interrupts(paused).raised():
        time.sleep(20)
except PauseRequestedError:
    leave(3)
""")
    assert ended.code == 3


def test_a_second_signal_does_not_tear_up_what_the_first_began(play):
    ended = play("""
later(0.1, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
try:
    with Interrupts(None).raised():
        with Interrupts(paused).raised():
            try:
                time.sleep(20)
            finally:
                time.sleep(0.1)
                say("closed")
        say("never")
except StopRequestedError:
    say("stopped")
    leave(0)
""")
    assert (ended.code, ended.said) == (0, ["closed", "stopped"])


def test_a_second_signal_in_the_outer_part_of_the_process_is_the_first_once_more(play):
    ended = play("""
try:
    with Interrupts(None).raised():
        later(0.1, signal.SIGTERM)
        try:
            with Interrupts(paused).raised():
                time.sleep(20)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            say("noted")
except StopRequestedError:
    leave(0)
""")
    assert (ended.code, ended.said) == (0, ["noted"])


def test_stops_that_keep_coming_do_not_put_off_the_end(play):
    ended = play(f"""
later(0.1, *[signal.SIGTERM] * 200)
with Interrupts(paused).raised():
    {LONG_CALL}
""")
    assert ended.code == 0
    assert ended.seconds < 8


def test_a_stop_comes_through_a_pause(play):
    ended = play("""
later(0.1, signal.SIGUSR1)
inner = Interrupts(paused)
try:
    with inner.raised():
        try:
            time.sleep(20)
        finally:
            say("pausing")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
except StopRequestedError:
    say("stopped")
    leave(0)
""")
    assert (ended.code, ended.said) == (0, ["pausing", "stopped"])


def test_a_stop_that_comes_while_it_ends_is_raised_at_the_end(play):
    ended = play("""
inner = Interrupts(paused)
try:
    with inner.raised():
        closing = os.close
        os.close = lambda handle: (inner._on_signal(signal.SIGTERM, None), closing(handle))
    say("never")
except StopRequestedError:
    say("stopped")
""")
    assert (ended.code, ended.said) == (0, ["stopped"])


def test_a_pauses_signal_without_a_pause_file_is_nothing(play):
    ended = play("""
later(0.05, signal.SIGUSR1)
with Interrupts(None).raised():
    time.sleep(1.2)
    say("on")
""")
    assert (ended.code, ended.said) == (0, ["on"])


def test_everything_is_put_back_as_it_was(play):
    ended = play("""
numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
before = [signal.getsignal(number) for number in numbers]
handles = len(os.listdir("/proc/self/fd"))
for turn in range(20):
    with Interrupts(paused).raised():
        pass
assert [signal.getsignal(number) for number in numbers] == before
assert signal.set_wakeup_fd(-1) == -1
assert len(os.listdir("/proc/self/fd")) == handles
assert threading.active_count() == 1
say("same")
""")
    assert (ended.code, ended.said) == (0, ["same"])


def test_two_hundred_stops_at_any_moment_are_never_lost(play):
    """The signal comes at random moments of entering and leaving; it is always raised, once."""
    ended = play("""
seen = 0
for turn in range(200):
    raised = 0
    interrupts_, outer = Interrupts(paused), Interrupts(None)
    try:
        with outer.raised():
            thread = threading.Thread(target=lambda: (time.sleep(turn * 5e-6), os.kill(os.getpid(), signal.SIGTERM)))
            thread.start()
            try:
                with interrupts_.raised():
                    pass
                thread.join()
                time.sleep(0.001)
            finally:
                interrupts_.settle()
    except StopRequestedError:
        raised += 1
    assert raised == 1, turn
    seen += raised
    thread.join()
    outer.settle()  # two hundred turns may take longer than the grace of one
say(seen)
leave(0)
""")
    assert (ended.code, ended.said) == (0, ["200"])
