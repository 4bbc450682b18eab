import base64
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.armour import TEXT_LIMIT, armour, block_kind, read_armoured_file, unarmour
from common.errors import ConfigError, IntegrityError

BODY = bytes(range(100))
TEXT = armour("join request", BODY)
FIRST, LAST = "-----BEGIN CLOISTER JOIN REQUEST-----", "-----END CLOISTER JOIN REQUEST-----"


def test_the_form_is_that_of_pem():
    lines = TEXT.splitlines()
    assert (lines[0], lines[-1]) == (FIRST, LAST)
    assert base64.b64decode("".join(lines[1:-1])) == BODY
    assert max(map(len, lines)) == 64
    assert TEXT.isascii()
    assert TEXT.endswith("-----\n")


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_bytes_come_back(body):
    assert unarmour("note", armour("note", body)) == body


@pytest.mark.parametrize(
    "mailed",
    [
        TEXT.replace("\n", "\r\n"),
        "\n\n" + TEXT + "\n\n",
        TEXT.replace("\n", " \n"),
        TEXT.replace("\n", "\n\n"),
        TEXT.rstrip("\n"),
        "\n".join("  " + line for line in TEXT.splitlines()),
        "\n".join([FIRST, *base64.b64encode(BODY).decode(), LAST]),
    ],
)
def test_what_mail_does_is_undone(mailed):
    assert unarmour("join request", mailed) == BODY


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "does not start"),
        ("\n \n", "does not start"),
        (FIRST, "does not end"),
        (LAST, "does not start"),
        (TEXT[:-10], "does not end"),
        (TEXT[1:], "does not start"),
        (TEXT + "-----", "does not end"),
        ("Dear coordinator,\n" + TEXT, "does not start"),
        (TEXT + "Sent from my phone", "does not end"),
        (TEXT.replace("JOIN REQUEST", "NOTE"), "does not start"),
        (TEXT.replace("A", "А"), "other than ASCII"),  # noqa: RUF001 - a Cyrillic letter
        ("﻿" + TEXT, "other than ASCII"),
        (TEXT.replace("\n", "\n!", 2), "not base64"),
        (TEXT.replace("\n", "\n=", 2), "not base64"),
        (TEXT.replace("AAEC", "AAE"), "not base64"),
        (TEXT.replace("AAEC", "A\0AEC"), "not base64"),
        (TEXT.replace("AAEC", "A AEC"), "not base64"),
        (TEXT.replace("\n", "\r"), "does not start"),
        (TEXT.replace("\n", "\x0c"), "does not start"),
        (f"{FIRST}\nAB==\n{LAST}", "one spelling"),
        (f"{FIRST}\nAA==AA==\n{LAST}", "not base64|one spelling"),
        ("x" * (TEXT_LIMIT + 1), f"has {TEXT_LIMIT + 1} characters"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text, rule):
    with pytest.raises(IntegrityError, match=rule) as caught:
        unarmour("join request", text)
    assert caught.value.message.startswith("the join request ")
    assert caught.value.message.isprintable()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (armour("invitation", BODY), "this is an invitation, and a join request is wanted"),
        ("\r\n" + armour("invitation", BODY).replace("\n", " \r\n"), "this is an invitation"),
        (TEXT + TEXT, "more than one document"),
        (TEXT + armour("invitation", BODY), "more than one document"),
    ],
)
def test_the_wrong_file_is_said_to_be_one_and_not_to_be_damaged(text, told):
    with pytest.raises(ConfigError, match=told) as caught:
        unarmour("join request", text)
    assert caught.value.exit_code == 3
    assert "on the way" not in caught.value.hint


def test_a_block_tells_its_kind():
    assert block_kind(TEXT) == "join request"
    assert block_kind("\n" + armour("invitation", BODY)) == "invitation"
    assert block_kind(armour("note", BODY)) is None
    assert block_kind("") is None


def test_a_file_is_read_as_text(tmp_path):
    (tmp_path / "request").write_text(TEXT)
    assert read_armoured_file(tmp_path / "request") == TEXT


def test_a_file_that_is_none_is_one_sentence(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    (tmp_path / "large").write_bytes(b"x" * (TEXT_LIMIT + 1))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_armoured_file(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_armoured_file(tmp_path)
    with pytest.raises(IntegrityError, match="other than ASCII"):
        read_armoured_file(tmp_path / "binary")
    with pytest.raises(IntegrityError, match="more than 65536 bytes"):
        read_armoured_file(tmp_path / "large")
    assert read_armoured_file(tmp_path / "pipe") == ""
