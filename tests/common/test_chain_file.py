import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import common.chain_file
from common.canonical import canonical_bytes
from common.chain import LINE_LIMIT_BYTES, Head
from common.chain_anchor import Anchor
from common.chain_file import ChainFile, utc_now, verify_chain
from common.errors import IntegrityError, RollbackError, TryAgainError
from common.identity import new_identity, public_name, sign

IDENTITY = new_identity()
MOMENT = datetime(2026, 11, 21, 15, 4, 5, tzinfo=UTC)


class Kill(BaseException):
    """The process dies here: nothing of it runs any more."""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "keys").mkdir()
    return tmp_path


def opened(home, identity=IDENTITY, **more):
    return ChainFile(home / "log", home / "keys" / "anchor", identity, purpose="test", clock=lambda: MOMENT, **more)


def verified(home):
    """Every value in the log, and what was found; kinds stand for lines without one."""
    lines = []
    found = verify_chain(
        home / "log", home / "keys" / "anchor", public_name(IDENTITY), purpose="test", note=lines.append
    )
    return [line.fields.get("value", line.kind) for line in lines], found


def filled(home, count=3):
    log = opened(home)
    for value in range(count):
        log.append("noted", {"value": value})
    return log


def test_lines_are_there_when_append_returns(home):
    log = opened(home)
    assert log.head == Head()
    assert verified(home)[0] == []
    line = log.append("noted", {"value": 0})
    assert (line.number, line.time, line.kind) == (1, "2026-11-21T15:04:05.000Z", "noted")
    assert log.head == line.head == verified(home)[1].head
    assert opened(home).head == log.head
    assert Anchor(home / "keys" / "anchor", public_name(IDENTITY), "test").read() == log.head
    assert (home / "log").stat().st_mode & 0o777 == 0o600


def test_the_clock_is_in_utc():
    assert utc_now().tzinfo is UTC


def test_line_then_anchor_each_synced(home, monkeypatch):
    log, seen = opened(home), []
    fsync = os.fsync

    def spy(handle):
        seen.append(Path(f"/proc/self/fd/{handle}").readlink().name[:5])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    log.append("noted", {})
    assert seen == ["log", ".anch", "keys"]


# --- crashes ---


@pytest.mark.parametrize("kept", [1, 100, -2])
def test_a_torn_line_is_mended_with_a_note(home, kept):
    filled(home, 2)
    whole = (home / "log").read_bytes()
    filled_line = whole.splitlines(keepends=True)[1]
    torn = filled_line[:kept]
    (home / "log").write_bytes(whole + torn)
    assert verified(home)[1].torn_bytes == len(torn)
    log = opened(home)
    assert verified(home)[0] == [0, 1, "mended"]
    assert log.head.number == 3
    last = (home / "log").read_bytes().splitlines()[-1]
    assert f'"digest":"{hashlib.sha256(torn).hexdigest()}","size_bytes":{len(torn)}'.encode() in last
    log.append("noted", {"value": 2})
    assert verified(home)[0] == [0, 1, "mended", 2]


def test_a_tail_that_no_line_can_be_is_not_mended(home):
    filled(home, 1)
    with (home / "log").open("ab") as stream:
        stream.write(b"x" * (LINE_LIMIT_BYTES + 1))
    with pytest.raises(IntegrityError, match=r"line 2: .* more than"):
        opened(home)


def test_a_crash_between_line_and_anchor_is_no_alarm(home, monkeypatch):
    log = filled(home, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Anchor, "write", lambda *_: (_ for _ in ()).throw(Kill()))
        with pytest.raises(Kill):
            log.append("noted", {"value": 2})
    assert verified(home) == ([0, 1, 2], common.chain_file.VerifiedChain(log.head, 0, True))
    again = opened(home)
    assert verified(home)[1].anchor_behind is False
    again.append("noted", {"value": 3})
    log.append("noted", {"value": 4})
    assert verified(home)[0] == [0, 1, 2, 3, 4]


def dying_after(calls, function):
    """A call that is cut short: half of a write is done, anything else is not."""
    left = [calls]

    def call(*arguments, **more):
        left[0] -= 1
        if left[0] > 0:
            return function(*arguments, **more)
        if function is os.pwrite:
            function(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
        raise Kill

    return call


PLACES = [(os, "pwrite"), (os, "fsync"), (os, "ftruncate"), (common.chain_anchor, "write_durably")]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deaths=st.lists(st.tuples(st.sampled_from(range(len(PLACES))), st.integers(1, 3)), max_size=6),
)
def test_whenever_it_is_killed_every_finished_line_stays_and_nothing_alarms(tmp_path_factory, deaths):
    home = tmp_path_factory.mktemp("home")
    (home / "keys").mkdir()
    finished, value = [], 0
    for place, calls in deaths:
        module, name = PLACES[place]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, dying_after(calls, getattr(module, name)))
            try:
                log = opened(home)
                for _ in range(3):
                    value += 1
                    log.append("noted", {"value": value})
                    finished.append(value)
            except Kill:
                pass
    opened(home).append("noted", {"value": 0})
    found = [value for value in verified(home)[0] if value != "mended"]
    assert found == [*sorted(found[:-1]), 0]
    assert set(finished) <= set(found)


@pytest.mark.parametrize("name", ["pwrite", "fsync", "ftruncate"])
def test_a_full_disk_leaves_the_log_as_it_was(home, monkeypatch, name):
    log = filled(home, 2)
    before = (home / "log").read_bytes()
    function, failed = getattr(os, name), []

    def full(*arguments):
        if failed:
            return function(*arguments)
        failed.append(True)
        raise OSError(errno.ENOSPC, "disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(OSError, match="disk full"):
            log.append("noted", {"value": 2})
    assert (home / "log").read_bytes() == before
    log.append("noted", {"value": 3})
    assert verified(home)[0] == [0, 1, 3]


def test_a_disk_that_takes_a_line_in_pieces(home, monkeypatch):
    log = opened(home)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: pwrite(handle, data[:50], offset))
    log.append("noted", {"value": 0})
    assert verified(home)[0] == [0]


# --- what somebody may do to it ---


def shortened(home):
    lines = (home / "log").read_bytes().splitlines(keepends=True)
    (home / "log").write_bytes(b"".join(lines[:-1]))


def test_the_anchor_is_what_sees_that_the_end_is_missing(home, monkeypatch):
    filled(home)
    shortened(home)
    with pytest.raises(RollbackError, match="ends at line 2, but line 3 was written"):
        opened(home)
    with pytest.raises(RollbackError, match="ends at line 2, but line 3 was written"):
        verified(home)
    monkeypatch.setattr(Anchor, "is_behind", lambda *_: False)
    assert opened(home).head.number == 2, "without the anchor nobody would know"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_and_any_changed_byte_shows(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("home")
    (home / "keys").mkdir()
    filled(home)
    whole = (home / "log").read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    (home / "log").write_bytes(whole[:place])
    with pytest.raises(RollbackError):
        verified(home)
    with pytest.raises(RollbackError):
        opened(home)
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    (home / "log").write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
    with pytest.raises((IntegrityError, RollbackError)):
        verified(home)


def test_a_missing_log_is_a_lost_one_once_it_was_begun(home):
    with pytest.raises(RollbackError, match="the log log is missing"):
        opened(home, must_exist=True)
    assert not (home / "log").exists()
    log = filled(home)
    (home / "log").unlink()
    for use in (lambda: opened(home), lambda: verified(home), lambda: log.append("noted", {})):
        with pytest.raises(RollbackError, match="the log log is missing"):
            use()
    (home / "log").write_bytes(b"")
    with pytest.raises(RollbackError, match="ends at line 0"):
        opened(home)


def test_a_missing_anchor_is_not_begun_anew(home):
    filled(home)
    (home / "keys" / "anchor").unlink()
    for use in (lambda: opened(home), lambda: verified(home)):
        with pytest.raises(IntegrityError, match="the anchor anchor of the log is missing"):
            use()


def test_a_log_that_was_begun_and_no_more_is_begun_again(home):
    (home / "log").touch()
    opened(home)
    assert verified(home)[0] == []


def test_changes_behind_the_back_of_an_open_log_show(home):
    log = filled(home)
    whole = (home / "log").read_bytes()
    shortened(home)
    with pytest.raises(RollbackError, match="shortened while it was in use"):
        log.append("noted", {})
    (home / "log").write_bytes(whole.replace(b'"value":2', b'"value":5'))
    with pytest.raises(IntegrityError, match="changed while it was in use"):
        log.append("noted", {})
    (home / "log").write_bytes(whole)
    log.append("noted", {"value": 3})


def test_another_identity_has_no_log_here(home):
    filled(home)
    with pytest.raises(IntegrityError, match="signed by another identity"):
        opened(home, new_identity())


def signed_by(home, identity, numbers):
    """The log with other signatures on some lines; content and hashes stay."""
    lines = [json.loads(line) for line in (home / "log").read_bytes().splitlines()]
    for line in lines:
        if line["number"] in numbers:
            line["signature"] = sign(identity, "test", line["hash"]).hex()
    (home / "log").write_bytes(b"".join(canonical_bytes(line) + b"\n" for line in lines))


@pytest.mark.parametrize("numbers", [{1}, {2}, {3}, {1, 2, 3}])
def test_a_line_signed_with_another_key_shows(home, numbers):
    filled(home)
    signed_by(home, IDENTITY, numbers)
    assert verified(home)[0] == [0, 1, 2]
    signed_by(home, new_identity(), numbers)
    with pytest.raises(IntegrityError, match=f"line {min(numbers)} is not signed by the owner"):
        verified(home)


def test_a_log_made_anew_with_another_key_shows(home, tmp_path_factory):
    filled(home)
    other = tmp_path_factory.mktemp("other")
    (other / "keys").mkdir()
    log = opened(other, new_identity())
    for value in (0, 7, 2):
        log.append("noted", {"value": value})
    (home / "log").write_bytes((other / "log").read_bytes())
    with pytest.raises(IntegrityError, match="another line 3 than its owner signed"):
        opened(home)
    with pytest.raises(IntegrityError, match="line 1 is not signed by the owner"):
        verified(home)


def test_what_is_no_line_is_not_written(home):
    log = filled(home, 1)
    for kind, fields, error in (("No", {}, IntegrityError), ("a", {"x": "y" * LINE_LIMIT_BYTES}, IntegrityError)):
        with pytest.raises(error):
            log.append(kind, fields)
    assert verified(home)[0] == [0]


# --- several writers ---


def test_two_objects_follow_each_other(home):
    first, second = opened(home), opened(home)
    for value in range(0, 6, 2):
        first.append("noted", {"value": value})
        second.append("noted", {"value": value + 1})
    assert verified(home)[0] == list(range(6))


def test_processes_and_threads_write_into_one_log(home):
    script = (
        "import sys; from pathlib import Path; from common.chain_file import ChainFile\n"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
        "home, start = Path(sys.argv[1]), int(sys.argv[2])\n"
        "key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(sys.argv[3]))\n"
        "log = ChainFile(home / 'log', home / 'keys' / 'anchor', key, purpose='test')\n"
        "[log.append('noted', {'value': start + step}) for step in range(10)]\n"
    )
    key = IDENTITY.private_bytes_raw().hex()
    others = [
        subprocess.Popen([sys.executable, "-c", script, str(home), str(start), key], cwd=Path.cwd())
        for start in (100, 200)
    ]
    threads = [threading.Thread(target=filled, args=(home, 10)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(timeout=60) for other in others] == [0, 0]
    values, found = verified(home)
    assert sorted(values) == sorted([*range(10), *range(10), *range(100, 110), *range(200, 210)])
    assert found.head.number == 40


def test_reading_leaves_out_what_is_written_meanwhile(home, monkeypatch):
    log = filled(home, 2)
    lines = []

    def note(line):
        if not lines:
            log.append("noted", {"value": 2})
        lines.append(line.fields["value"])

    found = verify_chain(home / "log", home / "keys" / "anchor", public_name(IDENTITY), purpose="test", note=note)
    assert (lines, found.head.number, found.torn_bytes) == ([0, 1], 2, 0)


def test_a_log_that_another_holds_is_waited_for_but_not_for_ever(home, monkeypatch):
    log = filled(home, 1)
    monkeypatch.setattr(common.chain_file, "WAIT_SECONDS", 0.01)
    handle = os.open(home / "log", os.O_RDWR)
    with common.chain_file.locked(handle, 0), pytest.raises(TryAgainError):
        log.append("noted", {})
    os.close(handle)
    log.append("noted", {"value": 1})
