import fcntl
import os

import pytest

from server.home import CoordinatorHome
from server.service_status import ServiceStatus, read_status, service_process, write_status


@pytest.fixture
def home(tmp_path):
    return CoordinatorHome(tmp_path)


@pytest.fixture
def held(home):
    handle = os.open(home.lock, os.O_CREAT | os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.pwrite(handle, b"4711", 0)
    yield handle
    os.close(handle)


def test_no_lock_is_no_service(home):
    assert service_process(home) is None
    assert read_status(home) is None


def test_a_lock_that_nobody_holds_is_what_a_killed_service_left(home, held):
    assert service_process(home) == 4711
    fcntl.flock(held, fcntl.LOCK_UN)
    write_status(home, ServiceStatus(4711, "2026-11-21T15:04:05Z", True, {"north": True}))
    assert service_process(home) is None
    assert read_status(home) is None


def test_a_running_service_says_what_it_wrote(home, held):
    status = ServiceStatus(4711, "2026-11-21T15:04:05Z", True, {"north": True})
    write_status(home, status)
    assert read_status(home) == status


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": 1, "since": "then"}', b'{"pid": 4711}', b"[]"])
def test_a_status_of_another_or_none_is_not_believed(home, held, content):
    home.status.write_bytes(content)
    assert read_status(home) == ServiceStatus(4711, "")


def test_a_service_that_has_not_written_its_number_yet_is_none(home, held):
    os.ftruncate(held, 0)
    assert service_process(home) is None
