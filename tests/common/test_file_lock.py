import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from common.errors import TryAgainError
from common.file_lock import alone, holder, locked


@pytest.fixture
def two(tmp_path):
    (tmp_path / "file").touch()
    handles = [os.open(tmp_path / "file", os.O_RDWR) for _ in range(2)]
    yield handles
    for handle in handles:
        os.close(handle)


def test_one_holder_at_a_time(two):
    first, second = two
    with locked(first, 0), pytest.raises(TryAgainError, match="more than 0 seconds"), locked(second, 0):
        pass
    with locked(second, 0):
        pass


def test_readers_share_it_and_a_writer_waits_for_them(two):
    first, second = two
    with locked(first, 0, shared=True):
        with locked(second, 0, shared=True):
            pass
        with pytest.raises(TryAgainError), locked(second, 0.01):
            pass


def test_an_error_in_the_block_lets_go(two):
    first, second = two
    with pytest.raises(ValueError, match="inside"), locked(first, 0):
        raise ValueError("inside")
    with locked(second, 0):
        pass


def test_it_is_taken_as_soon_as_it_is_free(two):
    first, second = two
    held = threading.Event()

    def hold():
        with locked(first, 0):
            held.set()
            time.sleep(0.05)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with locked(second, 5):
        pass
    holder.join()


# --- a lock file that says who holds it ------------------------------------------------------------------------------


def test_a_lock_file_says_who_holds_it_as_long_as_they_do(tmp_path):
    path = tmp_path / "lock"
    assert holder(path) is None
    with alone(path):
        assert holder(path) == os.getpid()
        assert holder(path) == os.getpid()  # looking takes no lock
        with pytest.raises(TryAgainError), alone(path):
            pass
        assert holder(path) == os.getpid()
    assert holder(path) is None
    assert path.read_bytes() == b""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_killed_process_left_behind_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert holder(path) == process.pid
        process.kill()
        process.wait()
    assert path.read_bytes() == str(process.pid).encode()
    assert holder(path) is None
    with alone(path):
        assert holder(path) == os.getpid()


KILLED = """
import sys, time
from pathlib import Path
from common.file_lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_who_holds_it_and_has_not_said_so_is_nobody_known(tmp_path):
    path = tmp_path / "lock"
    with alone(path):
        path.write_bytes(b"")
        assert holder(path) == 0
        path.write_bytes(b"no number")
        assert holder(path) == 0
