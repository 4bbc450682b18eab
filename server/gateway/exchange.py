"""One request on its way through the gateway: the body in and the answer out, piece by piece, neither kept whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.utils import formatdate

import httpx
from starlette.types import Receive, Send

from server.gateway.access import NO_ANSWER
from server.gateway.answer_shape import is_answer
from server.gateway.limits import GatewayLimits
from server.gateway.rules import ANSWER_PATH, PROTOBUF, REFUSED_BODY, REFUSED_HEADERS, RESPONSE_TYPES, Head, body_limit

OPENING_BYTES = 64 * 1024

OWN_HEADERS = (
    (b"content-type", PROTOBUF),
    (b"accept", PROTOBUF),
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"cloister-gateway"),
)
"""What every request to the SuperLink says, whatever the one from outside said."""


class _BodyTooLongError(Exception):
    """More bytes came than a body may have."""


class _NoAnswerError(Exception):
    """What was handed in is no answer to a message."""


class _ClientGoneError(Exception):
    """The connection ended before the request did."""


class Exchange:
    """One request and its answer.

    Guarantees:
        A few pieces of a body (64 KiB each) are held at a time: the next is read when the other side took the last. An
        answer's head, of a little over 2 MiB at most, is held whole and looked at first: what is none never arrives.
        What the SuperLink gets of a body that was cut off is cut off too, and never looks whole; of one that is cut off
        within its first 64 KiB it gets nothing.

    Attributes:
        status: What was answered; 0 for nothing.
        bytes_in: Bytes of the body read so far.
        bytes_out: Bytes of the answer's body handed on so far.
    """

    def __init__(self, client: httpx.AsyncClient, limits: GatewayLimits, receive: Receive, send: Send) -> None:
        self._client, self._limits, self._receive, self._send = client, limits, receive, send
        self._body_ended = False
        self._waited_seconds = 0.0
        self._limit_bytes = 0
        self.status = NO_ANSWER
        self.bytes_in = 0
        self.bytes_out = 0

    async def run(self, head: Head) -> None:
        """Pass one request on, and what goes wrong back as a status.

        Edge cases:
            What goes wrong when the answer has begun leaves it unfinished, which closes the connection: an answer that
            is cut off must not look whole.
        """
        self._limit_bytes = body_limit(head.path, self._limits.body_limit_bytes)
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                await self._forward(head)
        except _BodyTooLongError:
            await self._fail(413)
        except _NoAnswerError:
            await self._fail(400)
        except TimeoutError:
            await self._fail(504 if self._body_ended else 408)
        except httpx.ReadTimeout:
            await self._fail(504)
        except (httpx.TransportError, httpx.StreamError):
            await self._fail(503)
        except _ClientGoneError:
            return

    async def refuse(self, status: int) -> None:
        """Answer with the fixed body and close, whatever was asked; the time of day lets a hospital compare clocks."""
        self.status = status
        headers = [*REFUSED_HEADERS, (b"date", formatdate(usegmt=True).encode("ascii"))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": REFUSED_BODY})

    async def _fail(self, status: int) -> None:
        if self.status == NO_ANSWER:
            await self.refuse(status)

    async def _forward(self, head: Head) -> None:
        opening = await self._opening(whole=head.path == ANSWER_PATH)
        if head.path == ANSWER_PATH and not is_answer(opening):
            raise _NoAnswerError
        length = len(opening) if self._body_ended else head.length
        framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
        request = self._client.build_request(
            "POST", head.path, headers=[*OWN_HEADERS, framing, *head.forwarded], content=self._body(opening)
        )
        response = await self._client.send(request, stream=True)
        try:
            await self._relay(response)
        finally:
            await response.aclose()

    async def _opening(self, *, whole: bool) -> bytes:
        """Read a short body whole, so that one with a broken end never reaches the SuperLink at all."""
        opening = bytearray()
        while not self._body_ended and (whole or len(opening) < OPENING_BYTES):
            opening += await self._piece()
        return bytes(opening)

    async def _body(self, opening: bytes) -> AsyncIterator[bytes]:
        yield opening
        while not self._body_ended:
            yield await self._piece()

    async def _piece(self) -> bytes:
        async with asyncio.timeout(self._patience()):
            started = asyncio.get_running_loop().time()
            message = await self._receive()
            self._waited_seconds += asyncio.get_running_loop().time() - started
        if message["type"] != "http.request":
            raise _ClientGoneError
        piece: bytes = message.get("body", b"")
        self.bytes_in += len(piece)
        if self.bytes_in > self._limit_bytes:
            raise _BodyTooLongError
        self._body_ended = not message.get("more_body", False)
        return piece

    def _patience(self) -> float:
        """How long the next piece may take: the body as a whole must keep a pace, and no pause may be too long.

        Counted is the time that this waits for the body, not the time that the SuperLink takes for what came.
        """
        limits = self._limits
        due = limits.body_grace_seconds + self.bytes_in / limits.least_bytes_per_second
        return min(limits.idle_seconds, due - self._waited_seconds)

    async def _relay(self, response: httpx.Response) -> None:
        headers = self._response_headers(response)
        if headers is None:
            await self._fail(502)
            return
        self.status = response.status_code
        await self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        async for piece in response.aiter_raw():
            self.bytes_out += len(piece)
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    def _response_headers(self, response: httpx.Response) -> list[tuple[bytes, bytes]] | None:
        """What of the SuperLink's head goes out: type and length; None for an answer that no node should get."""
        given = {name.lower(): value for name, value in response.headers.raw}
        kind = given.get(b"content-type", PROTOBUF)
        odd_status = not (200 <= response.status_code < 300 or 400 <= response.status_code < 600)
        if odd_status or kind not in RESPONSE_TYPES or b"content-encoding" in given:
            return None
        headers = [(b"content-type", kind)]
        if b"content-length" in given:
            headers.append((b"content-length", given[b"content-length"]))
        if not self._body_ended:  # the rest of the request is still on its way: this connection is of no more use
            headers.append((b"connection", b"close"))
        return headers
