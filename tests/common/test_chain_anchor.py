import json

import pytest

from common.chain import Head, read_line, seal_line
from common.chain_anchor import Anchor
from common.errors import IntegrityError, RollbackError
from common.identity import new_identity, public_name

IDENTITY = new_identity()
START = Head()


def next_line(before=START, identity=IDENTITY, value=1):
    time = "2026-11-21T15:04:05.678Z"
    return read_line(seal_line(identity, "test", before, time=time, kind="noted", fields={"value": value}))


FIRST = next_line()
SECOND = next_line(FIRST.head)
THIRD = next_line(SECOND.head)


@pytest.fixture
def anchor(tmp_path):
    return Anchor(tmp_path / "log.anchor", public_name(IDENTITY), "test")


def test_what_is_written_is_read_again_and_nobody_else_may_look(anchor):
    anchor.write(IDENTITY, Head())
    anchor.write(IDENTITY, FIRST.head)
    assert anchor.read() == FIRST.head
    assert anchor.path.stat().st_mode & 0o777 == 0o600


def edited(anchor, **parts):
    anchor.write(IDENTITY, FIRST.head)
    anchor.path.write_text(json.dumps({**json.loads(anchor.path.read_text()), **parts}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda anchor: anchor.path.write_bytes(b""),
        lambda anchor: anchor.path.write_bytes(b"\xff"),
        lambda anchor: anchor.path.write_bytes(b"[]"),
        lambda anchor: anchor.path.write_bytes(b"{}"),
        lambda anchor: anchor.path.write_bytes(b"[" * 100_000),
        lambda anchor: edited(anchor, number=2),
        lambda anchor: edited(anchor, hash="1" * 64),
        lambda anchor: edited(anchor, signature="00"),
        lambda anchor: edited(anchor, signature="no"),
        lambda anchor: edited(anchor, signature=7),
        lambda anchor: anchor.write(new_identity(), FIRST.head),
        lambda anchor: Anchor(anchor.path, "", "other").write(IDENTITY, FIRST.head),
    ],
)
def test_a_damaged_or_foreign_anchor_is_refused(anchor, spoil):
    spoil(anchor)
    with pytest.raises(IntegrityError, match="damaged, or signed by another identity"):
        anchor.read()


def test_a_missing_anchor_is_refused(anchor):
    with pytest.raises(IntegrityError, match="is missing"):
        anchor.read()


@pytest.mark.parametrize(
    ("anchored", "last", "behind"),
    [(Head(), None, False), (Head(), FIRST, True), (FIRST.head, FIRST, False), (SECOND.head, THIRD, True)],
)
def test_a_crash_leaves_the_anchor_at_most_one_line_behind(anchor, anchored, last, behind):
    assert anchor.is_behind(anchored, last) is behind


STRANGE = next_line(FIRST.head, new_identity(), value=9)


@pytest.mark.parametrize(
    ("anchored", "last", "error", "rule"),
    [
        (FIRST.head, None, RollbackError, "ends at line 0, but line 1 was written"),
        (THIRD.head, FIRST, RollbackError, "ends at line 1, but line 3 was written"),
        (FIRST.head, THIRD, RollbackError, "stands at line 1 of 3: an older copy"),
        (SECOND.head, STRANGE, IntegrityError, "another line 2 than"),
        (FIRST.head, STRANGE, IntegrityError, "another line 2 than"),
        (STRANGE.head, THIRD, IntegrityError, "another line 3 than"),
    ],
)
def test_anything_else_was_somebodys_doing(anchor, anchored, last, error, rule):
    with pytest.raises(error, match=rule) as caught:
        anchor.is_behind(anchored, last)
    assert caught.value.hint
