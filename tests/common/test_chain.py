import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.canonical import canonical_bytes, digest
from common.chain import LINE_LIMIT_BYTES, Head, is_line_signed_by, read_line, seal_line, walk, written_time
from common.errors import IntegrityError
from common.identity import new_identity, public_name

IDENTITY = new_identity()
PUBLIC = public_name(IDENTITY)
START = Head()
MOMENT = "2026-11-21T15:04:05.678Z"


def line(before=START, kind="noted", **fields):
    return seal_line(IDENTITY, "test", before, time=MOMENT, kind=kind, fields=fields)


def chain(count):
    lines, head = [], Head()
    for number in range(count):
        lines.append(line(head, value=number))
        head = read_line(lines[-1]).head
    return lines


def changed(**parts):
    return canonical_bytes({**json.loads(line(value=1)), **parts}) + b"\n"


def rehashed(**parts):
    """A line whose hash fits its changed content: what an editor without the key can make."""
    values = {**json.loads(line(value=1)), **parts}
    body = {name: values[name] for name in ("number", "time", "previous", "kind", "fields")}
    return canonical_bytes({**values, "hash": digest(body)}) + b"\n"


def test_a_moment_is_written_in_one_way():
    assert written_time(datetime(2026, 11, 21, 15, 4, 5, 678_901, tzinfo=UTC)) == MOMENT


def test_the_first_line_is_spelled_out():
    """Worked out from the module's own words: SHA-256 of the canonical body, signature of the hash."""
    values = json.loads(line(value=1))
    body = {"number": 1, "time": MOMENT, "previous": "0" * 64, "kind": "noted", "fields": {"value": 1}}
    assert values == {**body, "hash": digest(body), "signature": values["signature"]}
    signed = canonical_bytes(["cloister signature", 1, "test", digest(body)])
    IDENTITY.public_key().verify(bytes.fromhex(values["signature"]), signed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=10), json_values, max_size=4))
def test_what_is_written_is_read_again(fields):
    sealed = seal_line(IDENTITY, "test", Head(), time=MOMENT, kind="noted", fields=fields)
    read = read_line(sealed)
    assert read.fields == fields
    assert (read.number, read.time, read.kind, read.before) == (1, MOMENT, "noted", Head())
    assert is_line_signed_by(PUBLIC, "test", read)
    assert sealed.count(b"\n") == 1


def test_a_line_is_signed_by_its_owner_for_its_purpose():
    read = read_line(line(value=1))
    assert is_line_signed_by(PUBLIC, "test", read)
    assert not is_line_signed_by(PUBLIC, "other", read)
    assert not is_line_signed_by(public_name(new_identity()), "test", read)
    assert not is_line_signed_by(PUBLIC, "test", read_line(rehashed(fields={"value": 2})))


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"x" * (LINE_LIMIT_BYTES + 1), f"more than {LINE_LIMIT_BYTES} bytes"),
        (b"not json\n", "is not JSON"),
        ("ü\n".encode(), "is not JSON"),
        (b'{"number": Infinity}\n', "is not JSON"),
        (b"[" * 5000 + b"\n", "is not JSON"),
        (b'{"a":1,"a":1}\n', "the one way"),
        (line(value=1)[:-1] + b" \n", "the one way"),
        (line(value=1)[:-1], "the one way"),
        (b"[]\n", "unknown or missing part"),
        (b"{}\n", "unknown or missing part"),
        (changed(more=1), "unknown or missing part"),
        (changed(number=0), "has no number"),
        (changed(number=True), "has no number"),
        (changed(number="1"), "has no number"),
        (changed(time="2026-11-21"), "has no time"),
        (changed(time="٢٠٢٦-11-21T15:04:05.678Z"), "has no time"),
        (changed(previous="00"), "has no hash"),
        (changed(previous=0), "has no hash"),
        (changed(hash="G" * 64), "has no hash"),
        (changed(signature="00"), "has no signature"),
        (changed(kind="Noted"), "has no kind"),
        (changed(kind=""), "has no kind"),
        (changed(fields=[]), "has no fields"),
        (changed(fields={"value": 2}), "does not match its hash"),
        (changed(number=2), "does not match its hash"),
        (changed(time="2026-11-21T15:04:05.679Z"), "does not match its hash"),
        (changed(kind="other"), "does not match its hash"),
        (changed(previous="1" * 64), "does not match its hash"),
    ],
)
def test_anything_else_is_no_line(data, rule):
    with pytest.raises(IntegrityError, match=rule):
        read_line(data)


def heads(data, start=START):
    return [found.head for found, _ in walk(io.BytesIO(data), start)]


def test_a_walk_gives_each_line_and_its_bytes():
    lines = chain(3)
    found = list(walk(io.BytesIO(b"".join(lines)), Head()))
    assert [data for _, data in found] == lines
    assert [read.fields["value"] for read, _ in found] == [0, 1, 2]
    assert heads(b"".join(lines[1:]), found[0][0].head) == [read.head for read, _ in found[1:]]
    assert heads(b"") == []


@pytest.mark.parametrize("kept", [0, 1, 200])
def test_a_walk_ends_before_a_torn_line(kept):
    lines = chain(2)
    assert heads(lines[0] + lines[1][:kept]) == heads(lines[0])


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (lambda a, b, c: [b, c], "line 1 does not follow"),
        (lambda a, b, c: [a, c], "line 2 does not follow"),
        (lambda a, b, c: [a, c, b], "line 2 does not follow"),
        (lambda a, b, c: [a, a], "line 2 does not follow"),
        (lambda a, b, c: [a, b, line(read_line(a).head, value=9), c], "line 3 does not follow"),
        (lambda a, b, c: [a, line(Head(7, read_line(a).hash))], "line 2 does not follow"),
        (lambda a, b, c: [rehashed(fields={"value": 9}), b], "line 2 does not follow"),
        (lambda a, b, c: [a, b.replace(b'"value":1', b'"value":7'), c], "line 2: .* does not match its hash"),
        (lambda a, b, c: [a, b"\n", b], "line 2: .* is not JSON"),
        (lambda a, b, c: [a, b"x" * (LINE_LIMIT_BYTES + 1)], "line 2: .* more than"),
    ],
)
def test_a_walk_stops_at_the_first_line_that_does_not_follow(data, fault):
    with pytest.raises(IntegrityError, match=fault) as caught:
        heads(b"".join(data(*chain(3))))
    assert caught.value.hint
