import os
import threading
import time

import pytest

from common.errors import TryAgainError
from common.file_lock import locked


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
