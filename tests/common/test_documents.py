import contextlib
import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import StrictConfig
from common.documents import document_bytes, parse_document, read_document_file, sign_document
from common.errors import ConfigError, IntegrityError
from common.identity import is_signed_by, new_identity, public_name
from common.moments import Moment


class Note(StrictConfig):
    format_version: Literal[1] = 1
    count: int
    rate: float = 0.5
    text: str = ""
    when: Moment | None = None
    signature: str = ""


GOOD = b'{"count":3,"format_version":1,"rate":0.5,"signature":"","text":"","when":"2026-11-05T09:30:00Z"}'


def parse(data: bytes, limit: int = 1000) -> Note:
    return parse_document(Note, data, "note", limit)


def test_a_document_has_one_byte_string():
    assert document_bytes(parse(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (GOOD[:-1], "is not JSON"),
        (b"[" * 900, "is not JSON"),
        (b"[]", "should be an object"),
        (GOOD + b" ", "canonical"),
        (GOOD + b"}", "is not JSON"),
        (b" " + GOOD, "canonical"),
        (b"\xef\xbb\xbf" + GOOD, "is not JSON"),
        (GOOD.replace(b"{", b'{"count":4,', 1), "canonical"),
        (GOOD.replace(b'"format_version":1,', b""), "canonical"),
        (GOOD.replace(b"0.5", b"0.50"), "canonical"),
        (GOOD.replace(b"0.5", b"5e-1"), "canonical"),
        (GOOD.replace(b"0.5", b"NaN"), "`rate`"),
        (GOOD.replace(b'"text":""', b'"text":"\\u0041"'), "canonical"),
        (GOOD.replace(b":3,", b":" + b"true" + b","), "`count`"),
        (GOOD.replace(b":3,", b":" + b'"3"' + b","), "`count`"),
        (GOOD.replace(b":3,", b":" + b"3.0" + b","), "`count`|canonical"),
        (GOOD.replace(b'"count":3,', b""), "lacks the field `count`"),
        (GOOD.replace(b"{", b'{"\\u001b[2J":0,', 1), "has an unknown field"),
        (GOOD.replace(b":1,", b":2,"), "`format_version`"),
    ],
)
def test_anything_else_is_refused_in_one_sentence_without_the_content(data, rule):
    with pytest.raises(IntegrityError, match=rule) as caught:
        parse(data)
    assert caught.value.message.startswith("the note ")
    assert caught.value.message.isprintable()
    assert "u001b" not in caught.value.message
    assert caught.value.hint


def test_what_is_too_long_is_not_looked_at():
    with pytest.raises(IntegrityError, match="has 1001 bytes and may have 1000"):
        parse(b"x" * 1001)


@settings(max_examples=60)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_another_document_or_none(position, change):
    data = bytearray(GOOD)
    data[position] ^= change
    with contextlib.suppress(IntegrityError):
        assert document_bytes(parse(bytes(data))) == data


def test_a_signed_document_is_signed_over_all_other_fields():
    identity = new_identity()
    note = sign_document(Note, "note", {"count": 3, "rate": 0.25, "text": "é", "when": None}, identity)
    content = json.loads(document_bytes(note))
    signature = bytes.fromhex(content.pop("signature"))
    assert is_signed_by(public_name(identity), "note", content, signature)
    assert not is_signed_by(public_name(identity), "note", content | {"count": 4}, signature)


def test_what_breaks_a_rule_is_not_made():
    with pytest.raises(ConfigError, match="the note cannot be made: it has a field `count`"):
        sign_document(Note, "note", {"count": "three"}, new_identity())


def test_a_kept_file_is_read_with_its_name_in_the_sentence(tmp_path):
    path = tmp_path / "note.json"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_document_file(Note, path, "note", 1000)
    path.write_bytes(GOOD)
    assert read_document_file(Note, path, "note", 1000).count == 3
    path.write_bytes(GOOD[:40])
    with pytest.raises(IntegrityError, match=r"note\.json: the note is not JSON") as caught:
        read_document_file(Note, path, "note", 1000)
    assert "backup" in caught.value.hint
    path.write_bytes(b" " * 5000)
    with pytest.raises(IntegrityError, match="has 1001 bytes"):
        read_document_file(Note, path, "note", 1000)
