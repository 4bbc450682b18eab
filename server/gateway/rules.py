"""Which requests pass from outside to the SuperLink: one list of paths, one shape of head, and nothing else.

Pure: a request's head in, a verdict out. What passes is written anew from this list, so that no byte of a target or of
a header that is not listed here reaches the SuperLink, however it was spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.envelope import SHORT_ENVELOPE_BYTES

PROTOBUF = b"application/protobuf"

FLEET_PATHS = (
    "/v1/fleet/activate-node",
    "/v1/fleet/deactivate-node",
    "/v1/fleet/send-node-heartbeat",
    "/v1/fleet/pull-messages",
    "/v1/fleet/push-messages",
    "/v1/fleet/pull-object",
    "/v1/fleet/push-object",
    "/v1/fleet/confirm-message-received",
    "/v1/fleet/get-run",
)
"""What a node calls. Nodes are registered by the coordinator and run installed code, so that `register-node`,
`unregister-node` and `get-fab` of the same API stay inside."""

FORWARDED_HEADERS = frozenset(
    {
        b"flwr-public-key",
        b"flwr-timestamp",
        b"flwr-signature",
        b"flwr-package-name",
        b"flwr-package-version",
        b"flwr-component-name",
    }
)
"""What Flower reads of a node's request beside its body: who signed the hour, and which version it speaks."""

RESPONSE_TYPES = frozenset({PROTOBUF, b"application/json"})
"""What the SuperLink answers with: a message, or an error with its code."""

REFUSED_BODY = b"refused\n"
REFUSED_HEADERS = (
    (b"content-type", b"text/plain"),
    (b"content-length", b"%d" % len(REFUSED_BODY)),
    (b"connection", b"close"),
)
"""The one answer to everything that does not pass; the status alone differs."""

HEAD_LIMIT_BYTES = 8 * 1024
HEADERS_LIMIT = 32
HEADER_VALUE_LIMIT = 1024

ANSWER_PATH = "/v1/fleet/push-messages"
_UPLOAD = "/v1/fleet/push-object"
_ROOM_BYTES = 64 * 1024

_PATHS: Mapping[bytes, str] = {path.encode("ascii"): path for path in FLEET_PATHS}
_SINGLE = FORWARDED_HEADERS | {b"content-type", b"content-length", b"transfer-encoding", b"connection"}
# What asks for another protocol, another body or a second answer than the one that is passed on.
_FORBIDDEN = frozenset({b"upgrade", b"http2-settings", b"expect", b"trailer", b"content-encoding"})
_PLAIN_VALUE = re.compile(rb"[A-Za-z0-9+/=:._ -]{1,%d}" % HEADER_VALUE_LIMIT)
_LENGTH = re.compile(rb"[0-9]{1,12}")

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Head:
    """The head of a request that may pass.

    Attributes:
        path: One of `FLEET_PATHS`.
        length: Declared bytes of the body; None for a chunked one.
        forwarded: The headers that go on, lower case.
    """

    path: str
    length: int | None
    forwarded: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Refusal:
    """A request that may not pass, with the status to answer."""

    status: int


def body_limit(path: str, upload_limit_bytes: int) -> int:
    """The longest body of a call: of an upload as configured, of any other a short envelope with its head.

    The SuperLink builds objects of what is in the others, and takes an upload as it is.
    """
    return upload_limit_bytes if path == _UPLOAD else min(upload_limit_bytes, SHORT_ENVELOPE_BYTES + _ROOM_BYTES)


def judge(scope: Mapping[str, Any], body_limit_bytes: int) -> Head | Refusal:
    """Decide on a request by its head alone.

    Guarantees:
        A `Head` comes only of an HTTP/1.1 POST whose raw target is, byte for byte, one of `FLEET_PATHS`, with one
        protobuf content type and exactly one of a length within the limit and the transfer encoding `chunked`.

    Edge cases:
        Percent-encoding, dot segments, doubled or trailing slashes, an absolute target, a host in front, a fragment and
        a query are other bytes, so they are other paths. Equal lengths given twice come merged from the parser (RFC
        9110, section 8.6), different ones do not come at all.

    Args:
        scope: An ASGI `http` scope.
        body_limit_bytes: The longest body that an upload may declare.

    Returns:
        404 for what is not on the list, 413 for a body that says it is too long, 400 for any other shape.
    """
    path = _PATHS.get(scope.get("raw_path") or b"")
    if path is None or scope["path"] != path or scope["method"] != "POST" or scope["query_string"]:
        return Refusal(404)
    headers: Headers = list(scope["headers"])
    if scope["http_version"] != "1.1" or not _is_plain(headers):
        return Refusal(400)
    return _judge_body(path, dict(headers), headers, body_limit_bytes)


def _judge_body(path: str, values: Mapping[bytes, bytes], headers: Headers, body_limit_bytes: int) -> Head | Refusal:
    length, encoding = values.get(b"content-length"), values.get(b"transfer-encoding")
    if values.get(b"content-type") != PROTOBUF or (length is None) == (encoding is None):
        return Refusal(400)
    if encoding is not None and encoding != b"chunked":
        return Refusal(400)
    if length is not None and not _LENGTH.fullmatch(length):
        return Refusal(400)
    if length is not None and int(length) > body_limit(path, body_limit_bytes):
        return Refusal(413)
    return Head(path, None if length is None else int(length), tuple(_forwarded(headers)))


def _is_plain(headers: Headers) -> bool:
    """Whether these are few headers, none forbidden, none of the meaningful ones twice or with an odd value."""
    names = [name for name, _ in headers]
    meaningful = [name for name in names if name in _SINGLE]
    return (
        len(headers) <= HEADERS_LIMIT
        and sum(len(name) + len(value) for name, value in headers) <= HEAD_LIMIT_BYTES
        and _FORBIDDEN.isdisjoint(names)
        and len(meaningful) == len(set(meaningful))
        and all(_PLAIN_VALUE.fullmatch(value) for _, value in _forwarded(headers))
        and all(value.lower() in (b"keep-alive", b"close") for name, value in headers if name == b"connection")
    )


def _forwarded(headers: Headers) -> Iterable[tuple[bytes, bytes]]:
    return ((name, value) for name, value in headers if name in FORWARDED_HEADERS)
