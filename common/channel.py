"""Flower's calls over HTTPS, to one place.

Flower's own HTTP client follows redirects, has no bound on an answer, and ends the process when versions differ; a
hospital's node can have none of that, so that its protobuf messages are posted here.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar
from weakref import WeakSet

import httpx
from google.protobuf.message import DecodeError, Message

from common.errors import AccessError, ConfigError, TransportError
from common.flower import MEDIA_TYPE, version_headers
from common.unreached import why_unreached

_ROOM = 1 << 20
_ERROR_BYTES = 1 << 16
"""Of an answer that is an error no more is read: all that counts in it is Flower's code."""
_CODES = 100_000
_WHOLE_CALL = 20
"""A whole call may take so many times as long as one wait: 64 MiB in ten minutes, by default."""

_CERTIFICATE_FAULTS = (
    (
        "has expired",
        "has expired, by this machine's clock",
        "is the clock right (`cloister-site doctor` compares)? then the coordinator needs `cloister-coordinator renew`",
    ),
    (
        "not yet valid",
        "is not valid yet, by this machine's clock",
        "set this machine's clock: it is probably slow (`cloister-site doctor` compares it with the coordinator's)",
    ),
    ("mismatch", "is for another address", "ask the coordinator for a new invitation"),
    (
        "",
        "the pinned authority did not sign",
        "is this the coordinator you accepted? compare fingerprints before you accept another invitation",
    ),
)
"""What OpenSSL says, what we say, and what to do. It looks for the authority first: who is told of a time or an address
has met a certificate of the right one."""

Answer = TypeVar("Answer", bound=Message)


class CallError(TransportError):
    """A call that the other side answered with an error.

    Args:
        status: HTTP status.
        code: Flower's code, 0 where it gave none.
    """

    def __init__(self, message: str, hint: str = "", *, status: int = 0, code: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code


class Channel:
    """Flower's protobuf calls over one HTTPS connection pool.

    Guarantees:
        One host and port is talked to, whatever it answers: redirects are not followed, and nothing that one answer
        sets goes out with the next call. The other side must show a certificate of the given authority. An answer
        longer than the limit is cut off, and so is one that comes too slowly to be whole in 20 times the wait.
        Whatever the bytes of an answer, `call` returns one message or raises one of its errors.

    Edge cases:
        Calls may be made from several threads; one that takes too long ends the others too, and the next one connects
        again.

    Args:
        address: HOST:PORT.
        authority: PEM certificates that are trusted, and no others.
        component: What Flower's version check is told we are.
        headers: Headers of each call, made anew.
        limit_bytes: The longest answer.
        timeout_seconds: For each wait on the network; a whole call may take `_WHOLE_CALL` of them.
        proxy: HOST:PORT of an HTTP proxy; empty for none; None for what HTTPS_PROXY and NO_PROXY say.

    Raises:
        ConfigError: When those variables name no HTTP proxy.
        TransportError: When the authority is none.
    """

    def __init__(  # noqa: PLR0913 - each of them is one decision about the network
        self,
        address: str,
        authority: str,
        component: str,
        headers: Callable[[], Mapping[str, str]] = dict,
        *,
        limit_bytes: int = 64 << 20,
        timeout_seconds: float = 30.0,
        proxy: str | None = None,
    ) -> None:
        self._address = address
        self._headers = headers
        self._limit = limit_bytes + _ROOM
        self._fixed = {
            "content-type": MEDIA_TYPE,
            "accept": MEDIA_TYPE,
            "accept-encoding": "identity",
            **version_headers(component),
        }
        self._patience_seconds = _WHOLE_CALL * timeout_seconds
        self._sockets: WeakSet[socket.socket] = WeakSet()
        trusted = _trusting(authority)
        try:
            self._client = httpx.Client(
                base_url=f"https://{address}",
                verify=trusted,
                timeout=timeout_seconds,
                follow_redirects=False,
                trust_env=proxy is None,
                proxy=f"http://{proxy}" if proxy else None,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        except (httpx.InvalidURL, ValueError, ImportError):
            raise ConfigError(
                "HTTPS_PROXY, ALL_PROXY or NO_PROXY in the environment cannot be used",
                hint="they must name an HTTP proxy as http://HOST:PORT, and hosts; or set `network.proxy`",
            ) from None

    def call(self, path: str, request: Message, kind: type[Answer], limit_bytes: int | None = None) -> Answer:
        """Post one message and read the answer.

        Args:
            path: Of the call.
            request: What is posted.
            kind: Of the answer.
            limit_bytes: The longest answer to this call, where less than the channel's limit will do.

        Raises:
            CallError: When the other side answers with an error, or with something that is no such message.
            TransportError: When it cannot be reached, takes too long, or shows another certificate.
        """
        status, content = self._post(path, request.SerializeToString(deterministic=True), limit_bytes or self._limit)
        if status != httpx.codes.OK:
            raise self._refused(status, content)
        try:
            answer: Answer = kind.FromString(content)
        except DecodeError:
            raise CallError(f"{self._address} answered with something that is no Flower message") from None
        return answer

    def hurry(self, seconds: float) -> None:
        """From now on, wait so long at most: the caller is leaving."""
        self._client.timeout = httpx.Timeout(seconds)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(self, path: str, body: bytes, limit: int) -> tuple[int, bytes]:
        headers, extensions = {**self._fixed, **self._headers()}, {"trace": self._note_socket}
        try:
            with (
                self._watched(),
                self._client.stream("POST", path, content=body, headers=headers, extensions=extensions) as response,
            ):
                return response.status_code, self._read(response, limit)
        # httpx says of a closed client by RuntimeError alone: `close` may come while another thread calls.
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            raise self._unreachable(error) from None

    def _read(self, response: httpx.Response, limit: int) -> bytes:
        is_error = response.status_code != httpx.codes.OK
        content = bytearray()
        for part in response.iter_raw():
            content += part
            if is_error and len(content) > _ERROR_BYTES:
                return b""
            if len(content) > limit:
                raise CallError(f"{self._address} answered with more than {limit} bytes")
        return bytes(content)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End what is read or written inside when it takes too long: a timeout of httpx is for one wait only."""
        watch = threading.Timer(self._patience_seconds, self._cut_off)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _cut_off(self) -> None:
        for connection in list(self._sockets):
            # Not closed here: its number could be another file's a moment later, and the reading thread is at it.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _note_socket(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._sockets.add(info["return_value"].get_extra_info("socket"))

    def _unreachable(self, error: Exception) -> TransportError:
        reason = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            fault, hint = next((fault, hint) for mark, fault, hint in _CERTIFICATE_FAULTS if mark in reason)
            return AccessError(f"{self._address} shows a certificate that {fault}", hint=hint)
        return TransportError(
            f"{self._address} cannot be reached: {why_unreached(error)}",
            hint="check that it is running, the address, and any proxy or firewall between",
        )

    def _refused(self, status: int, content: bytes) -> CallError:
        code = _flower_code(content)
        said = f" with Flower's code {code}" if code else ""
        return CallError(f"{self._address} refused the call: HTTP {status}{said}", status=status, code=code)


def _trusting(authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError, TypeError):
        raise TransportError(
            "the certificate authority is not a PEM certificate", hint="accept the coordinator's invitation again"
        ) from None
    return context


def _flower_code(content: bytes) -> int:
    try:
        code = json.loads(content)["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return code if type(code) is int and 0 < code < _CODES else 0
