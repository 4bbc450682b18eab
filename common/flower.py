"""What both sides need of Flower: our bytes in its messages, its calls over HTTPS, and the settings that keep it quiet.

Flower's own HTTP client follows redirects, has no bound on an answer, and ends the process when versions differ; a
hospital's node can have none of that, so that its protobuf messages are posted here.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx

from common.errors import AccessError, ProtocolError, TransportError

ENVIRONMENT: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
"""What every process that imports Flower runs under: no telemetry, no look for updates, no model hub."""

# Flower reads its environment when it is imported.
os.environ.update(ENVIRONMENT)

from flwr.app import ConfigRecord, RecordDict  # noqa: E402
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata  # noqa: E402
from google.protobuf.message import DecodeError, Message  # noqa: E402

MESSAGE_TYPE = "query.cloister"
"""The type of all our messages: no app of Flower's own is ever asked for one."""

MEDIA_TYPE = "application/protobuf"

_RECORD, _FIELD = "cloister", "envelope"
_ROOM = 1 << 20

Answer = TypeVar("Answer", bound=Message)


def pack(envelope: bytes) -> RecordDict:
    """Our bytes as the content of a Flower message."""
    return RecordDict({_RECORD: ConfigRecord({_FIELD: envelope})})


def unpack(content: RecordDict) -> bytes:
    """The bytes that `pack` put in.

    Raises:
        ProtocolError: When the content is anything else.
    """
    record = content.get(_RECORD) if list(content) == [_RECORD] else None
    if not isinstance(record, ConfigRecord):
        raise _unfit()
    return _envelope_in(record)


def unpack_record(data: bytes) -> bytes:
    """The bytes that `pack` put in, from Flower's serialised record alone.

    Raises:
        ProtocolError: When it is anything else.
    """
    try:
        record = ConfigRecord.inflate(data)
    except (ValueError, TypeError, DecodeError):
        raise _unfit() from None
    return _envelope_in(record)


def _envelope_in(record: ConfigRecord) -> bytes:
    envelope = record.get(_FIELD) if list(record) == [_FIELD] else None
    if not isinstance(envelope, bytes):
        raise _unfit()
    return envelope


def _unfit() -> ProtocolError:
    return ProtocolError("a message must hold one sealed envelope and nothing else")


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
        One host and port is talked to, whatever it answers: redirects are not followed. The other side must show a
        certificate of the given authority. An answer longer than the limit is cut off.

    Args:
        address: HOST:PORT.
        authority: PEM certificates that are trusted, and no others.
        component: What Flower's version check is told we are.
        headers: Headers of each call, made anew.
        limit_bytes: The longest answer.
        timeout_seconds: For each wait on the network.
        proxy: HOST:PORT of an HTTP proxy; empty for none; None for what HTTPS_PROXY and NO_PROXY say.
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
            **dict(RuntimeVersionMetadata.from_local_component(component).as_metadata()),
        }
        self._client = httpx.Client(
            base_url=f"https://{address}",
            verify=_trusting(authority),
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=proxy is None,
            proxy=f"http://{proxy}" if proxy else None,
        )

    def call(self, path: str, request: Message, kind: type[Answer]) -> Answer:
        """Post one message and read the answer.

        Raises:
            CallError: When the other side answers with an error, or with something that is no such message.
            TransportError: When it cannot be reached, or shows another certificate.
        """
        try:
            with self._client.stream(
                "POST",
                path,
                content=request.SerializeToString(deterministic=True),
                headers={**self._fixed, **self._headers()},
            ) as response:
                content = self._read(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if response.status_code != httpx.codes.OK:
            raise self._refused(response.status_code, content)
        try:
            answer: Answer = kind.FromString(content)
        except DecodeError:
            raise CallError(f"{self._address} answered with something that is no Flower message") from None
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        for part in response.iter_raw():
            content += part
            if len(content) > self._limit:
                raise CallError(f"{self._address} answered with more than {self._limit} bytes")
        return bytes(content)

    def _unreachable(self, error: httpx.HTTPError) -> TransportError:
        reason = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return AccessError(
                f"{self._address} shows a certificate that the pinned authority did not sign",
                hint="is this the coordinator you accepted? compare fingerprints before you accept another invitation",
            )
        return TransportError(
            f"{self._address} cannot be reached ({type(error).__name__})",
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
    except ssl.SSLError:
        raise TransportError(
            "the certificate authority is not a PEM certificate", hint="accept the coordinator's invitation again"
        ) from None
    return context


def _flower_code(content: bytes) -> int:
    try:
        code = json.loads(content)["code"]
    except (ValueError, KeyError, TypeError):
        return 0
    return code if isinstance(code, int) else 0
