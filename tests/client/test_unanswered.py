import stat

import pytest

from client.unanswered import UnansweredMessage

MESSAGE = b"a sealed order" * 1000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "unanswered.message"


def test_a_message_is_there_in_the_next_life_until_it_was_answered(path):
    UnansweredMessage(path).keep(MESSAGE)
    assert UnansweredMessage(path).take() == MESSAGE
    UnansweredMessage(path).forget()
    assert UnansweredMessage(path).take() == b""
    assert not path.exists()


def test_the_last_one_counts_and_only_its_owner_may_read_it(path):
    kept = UnansweredMessage(path)
    kept.keep(MESSAGE)
    kept.keep(b"short")
    assert kept.take() == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_message_that_ends_the_process_does_so_three_times_at_most(path):
    UnansweredMessage(path).keep(MESSAGE)
    assert [UnansweredMessage(path).take() for _ in range(5)] == [MESSAGE] * 3 + [b""] * 2
    UnansweredMessage(path).keep(b"the next")
    assert UnansweredMessage(path).take() == b"the next"


@pytest.mark.parametrize("at", [0, 1, 20, 33, 40, -1])
def test_a_spoilt_file_holds_no_message(path, at):
    UnansweredMessage(path).keep(MESSAGE)
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    assert UnansweredMessage(path).take() in ((MESSAGE,) if at == 0 else (b"",))
    for _ in range(4):
        UnansweredMessage(path).take()
    assert UnansweredMessage(path).take() == b""


@pytest.mark.parametrize("end", [0, 1, 10, 33, 500])
def test_a_torn_file_holds_no_message(path, end):
    UnansweredMessage(path).keep(MESSAGE)
    path.write_bytes(path.read_bytes()[:end])
    assert UnansweredMessage(path).take() == b""


def test_without_a_file_there_is_none_and_a_full_disk_is_no_error(tmp_path):
    for kept in (UnansweredMessage(None), UnansweredMessage(tmp_path / "no folder" / "message")):
        kept.keep(MESSAGE)
        assert kept.take() == b""
        kept.forget()
