import hashlib
import json

import pytest

import client.sealed_file
from client.inbox_record import InboxRecord
from common.errors import IntegrityError, RefusedError

FEDERATION, SITE = "fe" * 32, "north"
ONE, TWO = "1" * 64, "2" * 64
NAME = "inbox.record"


@pytest.fixture
def record(tmp_path):
    return InboxRecord(tmp_path / NAME, FEDERATION, SITE)


def reopened(folder):
    return InboxRecord(folder / NAME, FEDERATION, SITE, must_exist=True)


def standing(record):
    return record.last_sequence, record.last_request, record.answered, record.kept_reply()


def test_a_new_record_is_on_disk_and_private(record, tmp_path):
    assert standing(record) == standing(reopened(tmp_path)) == (0, "", 0, None)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_a_request_and_its_reply_are_on_disk_when_the_calls_return(record, tmp_path):
    record.begin(5, ONE)
    assert standing(record) == standing(reopened(tmp_path)) == (5, ONE, 0, None)
    record.keep_reply(ONE, b"reply\x00\n")
    assert standing(record) == standing(reopened(tmp_path)) == (5, ONE, 5, b"reply\x00\n")
    assert (tmp_path / "inbox.reply").stat().st_mode & 0o777 == 0o600
    record.begin(9, TWO)
    assert standing(record) == standing(reopened(tmp_path)) == (9, TWO, 5, None)


@pytest.mark.parametrize("sequence", [0, 4, 5])
def test_sequences_only_grow(record, sequence):
    record.begin(5, ONE)
    with pytest.raises(RefusedError, match=f"request {sequence} comes after request 5"):
        record.begin(sequence, TWO)
    assert standing(record) == (5, ONE, 0, None)


def test_the_first_sequence_is_one(record):
    with pytest.raises(RefusedError):
        record.begin(0, ONE)
    record.begin(1, ONE)


def test_one_reply_is_kept_for_the_last_request_and_no_other(record):
    for request in ("", TWO):
        with pytest.raises(RefusedError, match="request 0 is the last one"):
            record.keep_reply(request, b"none was asked for")
    record.begin(1, ONE)
    record.begin(2, TWO)
    with pytest.raises(RefusedError, match="request 2 is the last one"):
        record.keep_reply(ONE, b"late")
    record.keep_reply(TWO, b"two")
    with pytest.raises(RefusedError, match="request 2 is the last one"):
        record.keep_reply(TWO, b"another")
    assert record.kept_reply() == b"two"


# --- kills and full disks --------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("writes", range(7))
@pytest.mark.parametrize("lands", [False, True])
def test_killed_at_any_write_either_the_same_reply_comes_again_or_it_never_left(tmp_path, monkeypatch, writes, lands):
    """Two requests, three writes each after the first; the write at which it is killed has landed, or has not."""
    left, remaining = [], [writes]

    def write(path, content, mode=0o644):
        remaining[0] -= 1
        if remaining[0] >= 0 or lands:
            original(path, content, mode)
        if remaining[0] < 0:
            raise Killed

    original = client.sealed_file.write_durably
    with monkeypatch.context() as patch:
        patch.setattr(client.sealed_file, "write_durably", write)
        with pytest.raises(Killed):
            play(tmp_path, b"first ", left)
    play(tmp_path, b"second ", left)
    assert {request for request, _ in left} >= {TWO}
    assert len(set(left)) == len({request for request, _ in left}), "two different replies to one request left"


def play(folder, prefix, left):
    """A site that works off two requests from where it stands; what it lets out goes on the list."""
    record = InboxRecord(folder / NAME, FEDERATION, SITE)
    for sequence, request in ((1, ONE), (2, TWO)):
        if sequence > record.last_sequence:
            record.begin(sequence, request)
        if request == record.last_request:
            if record.kept_reply() is None:
                record.keep_reply(request, prefix + request.encode())
            left.append((request, record.kept_reply()))


@pytest.mark.parametrize("writes", [0, 1])
def test_when_the_disk_is_full_the_object_claims_no_more_than_the_file(record, tmp_path, monkeypatch, writes):
    record.begin(1, ONE)
    landed = []

    def until_full(path, content, mode):
        if len(landed) == writes:
            raise OSError(28, "No space left on device")
        landed.append(original(path, content, mode))

    original = client.sealed_file.write_durably
    with monkeypatch.context() as patch:
        patch.setattr(client.sealed_file, "write_durably", until_full)
        with pytest.raises(OSError, match="No space left"):
            record.keep_reply(ONE, b"reply")
        assert standing(record) == standing(reopened(tmp_path)) == (1, ONE, 0, None)
    record.keep_reply(ONE, b"reply")
    assert reopened(tmp_path).kept_reply() == b"reply"


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_record_with_any_byte_changed_or_cut_off_is_refused(record, tmp_path):
    record.begin(1, ONE)
    whole = (tmp_path / NAME).read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x40
        for damaged in (bytes(changed), whole[:position]):
            (tmp_path / NAME).write_bytes(damaged)
            with pytest.raises(IntegrityError, match="is damaged"):
                reopened(tmp_path)
            assert (tmp_path / NAME).read_bytes() == damaged


def test_a_lost_record_is_not_begun_anew(tmp_path):
    with pytest.raises(IntegrityError, match="is missing") as error:
        reopened(tmp_path)
    assert "never put an older copy in its place" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_goes_missing_is_noticed(record, tmp_path):
    (tmp_path / NAME).unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        record.begin(1, ONE)


def test_a_kept_reply_that_is_missing_changed_or_older_is_not_sent(record, tmp_path):
    reply = tmp_path / "inbox.reply"
    record.begin(1, ONE)
    record.keep_reply(ONE, b"one")
    record.begin(2, TWO)
    record.keep_reply(TWO, b"two")
    for content in (b"twO", b"tw", b"", b"one"):
        reply.write_bytes(content)
        with pytest.raises(IntegrityError, match="is missing or damaged"):
            record.kept_reply()
    reply.unlink()
    with pytest.raises(IntegrityError, match="is missing or damaged"):
        record.kept_reply()


@pytest.mark.parametrize("change", [lambda reply: reply.unlink(), lambda reply: reply.write_bytes(b"older")])
def test_a_record_without_the_reply_that_it_tells_of_is_not_opened(record, tmp_path, change):
    record.begin(1, ONE)
    record.keep_reply(ONE, b"one")
    change(tmp_path / "inbox.reply")
    with pytest.raises(IntegrityError, match=r"tells of a reply that inbox\.reply does not hold"):
        reopened(tmp_path)
    record.begin(2, TWO)
    assert reopened(tmp_path).kept_reply() is None


def test_a_look_while_the_node_answers_is_no_false_alarm(record, tmp_path, monkeypatch):
    """The reply was replaced between the two looks of another process; the record follows."""
    record.begin(1, ONE)
    record.keep_reply(ONE, b"one")
    real = InboxRecord.kept_reply

    def meanwhile(self):
        monkeypatch.setattr(InboxRecord, "kept_reply", real)
        record.begin(2, TWO)
        record.keep_reply(TWO, b"two")
        raise IntegrityError("the reply is another's by now")

    monkeypatch.setattr(InboxRecord, "kept_reply", meanwhile)
    assert reopened(tmp_path).kept_reply() == b"two"


@pytest.mark.parametrize(("federation", "site"), [("0f" * 32, SITE), (FEDERATION, "south")])
def test_a_record_of_another_federation_or_site_is_refused(record, tmp_path, federation, site):
    with pytest.raises(IntegrityError, match="belongs to another federation or site"):
        InboxRecord(tmp_path / NAME, federation, site)


def sealed(header):
    body = json.dumps(header).encode() + b"\n"
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"note": ""},
        {"last_sequence": -1},
        {"last_sequence": 5.0},
        {"last_sequence": 0},
        {"last_request": ""},
        {"answered": 6},
        {"answered": -1},
        {"last_reply": ONE},
        {"answered": 5},
        {"last_sequence": 0, "last_request": ""},
        {"last_sequence": 0, "last_request": "", "answered": 0, "last_reply": ONE},
    ],
)
def test_a_record_that_this_version_cannot_have_written_is_refused(tmp_path, changes):
    header = {
        "format_version": 1, "federation": FEDERATION, "site": SITE,
        "last_sequence": 5, "last_request": ONE, "last_reply": "", "answered": 3,
    }  # fmt: skip
    (tmp_path / NAME).write_bytes(sealed(header))
    assert standing(reopened(tmp_path)) == (5, ONE, 3, None)
    (tmp_path / NAME).write_bytes(sealed({**header, **changes}))
    with pytest.raises(IntegrityError, match="is not one that this version writes"):
        reopened(tmp_path)
