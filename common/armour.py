"""Bytes as an ASCII block that survives mail, chat and copy and paste.

A line `-----BEGIN CLOISTER JOIN REQUEST-----`, lines of base64, a line `-----END CLOISTER JOIN REQUEST-----`.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from common.documents import unreadable
from common.errors import ConfigError

TEXT_LIMIT = 64 * 1024
"""Characters of a block at most; a request has about 1,100, an invitation 2,200."""

_LINE = 64
_ARTICLES = {"join request": "a", "invitation": "an", "signed plan": "a"}
_PLAN_BEGINS = '{"coordinator":'
"""A signed plan is no block, but JSON; its first field in the one spelling."""


def armour(name: str, body: bytes) -> str:
    """Write bytes as one block; `name` stands in its first and last line."""
    text = base64.b64encode(body).decode("ascii")
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join([_edge("BEGIN", name), *lines, _edge("END", name), ""])


def unarmour(name: str, text: str) -> bytes:
    """The bytes of a block.

    Guarantees:
        One block of this name and nothing else: no second block, no word before or after it, which a reader might take
        for a part of what is signed.

    Edge cases:
        What mail does is undone: other line ends, other line lengths, spaces at the ends of lines, empty lines.

    Raises:
        ConfigError: When it is whole, but a block of another kind, or several.
        IntegrityError: One sentence that names the broken rule.
    """
    if len(text) > TEXT_LIMIT:
        raise unreadable(name, f"has {len(text)} characters and may have {TEXT_LIMIT}")
    if not text.isascii():
        raise unreadable(name, "has characters other than ASCII")
    lines = _lines(text)
    _refuse_others(name, lines)
    if not lines or lines[0] != _edge("BEGIN", name):
        raise unreadable(name, f"does not start with the line `{_edge('BEGIN', name)}`")
    if lines[-1] != _edge("END", name):
        raise unreadable(name, f"does not end with the line `{_edge('END', name)}`")
    return _decode(name, "".join(lines[1:-1]))


def block_kind(text: str) -> str | None:
    """Which of our documents a text begins as, such as `invitation`; None where it is no block of one."""
    return next((kind for kind in _ARTICLES if _lines(text)[:1] == [_edge("BEGIN", kind)]), None)


def refuse_kind(found: str, wanted: str) -> ConfigError:
    """The error for a document that is whole, but handed in for one of another kind."""
    what = f"this is {_ARTICLES.get(found, 'a')} {found}, and {_ARTICLES.get(wanted, 'a')} {wanted} is wanted"
    return ConfigError(what, hint="check the path: is it the right file?")


def read_armoured_file(path: Path) -> str:
    """The text of a file that should hold a block; a file without end, or of other text, is not read to its end.

    Raises:
        ConfigError: When the file is missing or cannot be read.
        IntegrityError: When it is too long, or no ASCII text.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            content = stream.read(TEXT_LIMIT + 1) or b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="check the path") from None
    if len(content) > TEXT_LIMIT:
        raise unreadable(f"file {path}", f"has more than {TEXT_LIMIT} bytes")
    if not content.isascii():
        raise unreadable(f"file {path}", "has characters other than ASCII")
    return content.decode("ascii")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a named pipe to which nobody writes is empty, instead of holding the command for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _lines(text: str) -> list[str]:
    return [line for line in (line.strip(" \t") for line in text.replace("\r\n", "\n").split("\n")) if line]


def _refuse_others(name: str, lines: list[str]) -> None:
    """Tell a person who took the wrong file that it is one, rather than that it was changed on the way."""
    edges = {_edge("BEGIN", kind): kind for kind in (name, *_ARTICLES)}
    blocks = [edges[line] for line in lines if line in edges]
    if len(blocks) > 1:
        raise ConfigError("the file holds more than one document", hint="hand in a file with the one that is wanted")
    if lines and lines[0].startswith(_PLAN_BEGINS):
        raise refuse_kind("signed plan", name)
    if blocks and blocks[0] != name and lines[0] == _edge("BEGIN", blocks[0]):
        raise refuse_kind(blocks[0], name)


def _edge(place: str, name: str) -> str:
    return f"-----{place} CLOISTER {name.upper()}-----"


def _decode(name: str, text: str) -> bytes:
    try:
        body = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise unreadable(name, "holds something that is not base64") from None
    # Unused bits of the last character could be anything; only zeros are the one spelling.
    if base64.b64encode(body).decode("ascii") != text:
        raise unreadable(name, "holds base64 in another than the one spelling")
    return body
