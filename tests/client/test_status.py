import os

import pytest

from client.status import NodeStatus, StatusBoard, read_status

PLAN = "a" * 64


@pytest.fixture
def path(tmp_path):
    return tmp_path / "status.json"


def test_what_is_shown_is_what_is_read(path):
    StatusBoard(path).show("working", "loading the base", plan=PLAN, round_number=3)
    shown = read_status(path)
    assert shown is not None
    assert (shown.doing, shown.detail, shown.plan, shown.round_number) == ("working", "loading the base", PLAN, 3)
    assert shown.pid == os.getpid()


def test_nobody_else_may_read_it_and_no_draft_is_left(path):
    StatusBoard(path).show("waiting")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_plan_and_round_stay_until_others_are_named(path):
    board = StatusBoard(path)
    board.show("working", plan=PLAN, round_number=3)
    board.show("waiting")
    assert (read_status(path).plan, read_status(path).round_number) == (PLAN, 3)
    board.show("working", plan="b" * 64)
    assert (read_status(path).plan, read_status(path).round_number) == ("b" * 64, 0)


def test_since_is_of_what_the_node_does_not_of_the_last_word(path, monkeypatch):
    times = iter(["t0", "t1", "t2"])
    monkeypatch.setattr("client.status._now", lambda: next(times))
    board = StatusBoard(path)
    for doing, since in (("connecting", "t0"), ("working", "t1"), ("working", "t1"), ("waiting", "t2")):
        board.show(doing)
        assert (read_status(path).doing, read_status(path).since) == (doing, since)


def test_a_full_disk_costs_the_snapshot_and_not_the_node(path, monkeypatch):
    board = StatusBoard(path)
    board.show("waiting")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("client.status.Path.write_text", full)
        board.show("working")
    assert read_status(path).doing == "waiting"
    board.show("paused")
    assert read_status(path).doing == "paused"


def test_a_detail_that_no_encoding_knows_is_shown_all_the_same(path):
    StatusBoard(path).show("failed", "the file /data/\udcff.csv")
    assert path.read_bytes().isascii()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[", b'{"doing": "dreaming", "since": "", "pid": 1}'])
def test_what_cannot_be_read_is_no_status(path, content):
    if content is not None:
        path.write_bytes(content)
    assert read_status(path) is None


def test_an_unknown_field_is_no_status(path):
    path.write_text(NodeStatus(doing="waiting", since="", pid=1).model_dump_json().replace("{", '{"more": 1, ', 1))
    assert read_status(path) is None
