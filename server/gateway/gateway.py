"""The TLS gateway between hospitals and the SuperLink: the calls of a node pass, nothing else does.

The SuperLink's Control and Runtime APIs share a port with its Fleet API and trust whoever reaches them, so it listens
on loopback and this stands in front. `server.gateway.door` lets connections in, `server.gateway.rules` and
`server.gateway.nodes` decide on a request, `server.gateway.exchange` passes it on. docs/deploy/nginx.conf holds the
same rules for nginx.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from common.errors import ConfigError
from server.gateway.access import REFUSED, AccessBook, AccessLine
from server.gateway.door import Door, open_listener, outside_tls
from server.gateway.exchange import Exchange
from server.gateway.limits import GatewayLimits, TokenBuckets, address_group
from server.gateway.nodes import NodeKeys, calling_node
from server.gateway.places import Place
from server.gateway.rules import Head, Refusal, judge

OnAccess = Callable[[AccessLine], None]

_TICK_SECONDS = 0.1


@dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens, and where the SuperLink is.

    Attributes:
        host: Address of this machine that hospitals reach; `0.0.0.0` for every one.
        port: Port they reach; 0 for a free one.
        certificate: The coordinator's certificate chain, PEM.
        key: Its private key, PEM.
        upstream: HOST:PORT of the SuperLink, on loopback.
        upstream_ca: The certificate authority that signed the SuperLink's certificate, PEM.
        node_keys: Gives the node keys whose requests pass, at each request anew.
        limits: Bounds on what is served.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    upstream: str
    upstream_ca: Path
    node_keys: NodeKeys
    limits: GatewayLimits = field(default_factory=GatewayLimits)


def run_gateway(
    settings: GatewaySettings,
    on_access: OnAccess,
    stop: threading.Event,
    on_ready: Callable[[str, int], None] | None = None,
) -> None:
    """Serve until told to stop; returns within about two seconds then.

    Guarantees:
        A request that no enrolled node signed is refused by its head, with 401. Every request is in one access line.
        When a line cannot be kept, because `on_access` raises, serving ends with that error: nothing passes unseen.

    Args:
        settings: Where and within which bounds.
        on_access: Takes one line at a time, from a thread of its own; may block.
        stop: Set it, from any thread, to end.
        on_ready: Told the address and port once connections are accepted.

    Raises:
        ConfigError: For certificates or keys that cannot be used.
        TransportError: When the address cannot be listened on.
    """
    asyncio.run(_serve(settings, on_access, stop, on_ready))


async def _serve(
    settings: GatewaySettings,
    on_access: OnAccess,
    stop: threading.Event,
    on_ready: Callable[[str, int], None] | None,
) -> None:
    limits = settings.limits
    book = AccessBook(limits.access_window_seconds, limits.access_lines)
    buckets = TokenBuckets(limits.requests_per_second, limits.burst)
    tls = outside_tls(settings.certificate, settings.key)
    async with upstream_client(settings) as client:
        app = gateway_app(settings, client, book, buckets)
        listener = open_listener(settings.host, settings.port)
        door = Door(app, listener, tls, limits, buckets, lambda address, status: book.note(address, REFUSED, status))
        if on_ready is not None:
            on_ready(*listener.getsockname()[:2])
        try:
            await _keep_open(door, book, on_access, stop)
        finally:
            await door.close()
        await asyncio.to_thread(_deliver, book.close_window(), on_access)


async def _keep_open(door: Door, book: AccessBook, on_access: OnAccess, stop: threading.Event) -> None:
    accepting = asyncio.create_task(door.accept())
    try:
        while not stop.is_set() and not accepting.done():
            if lines := book.due():
                await asyncio.to_thread(_deliver, lines, on_access)
            await asyncio.sleep(_TICK_SECONDS)
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)


def _deliver(lines: tuple[AccessLine, ...], on_access: OnAccess) -> None:
    for line in lines:
        on_access(line)


def upstream_client(settings: GatewaySettings) -> httpx.AsyncClient:
    """A client that trusts the federation's certificate authority alone, and no proxy or redirect.

    Raises:
        ConfigError: When the certificate authority cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(settings.upstream_ca)
    except OSError as error:
        raise ConfigError(
            f"the federation's certificate authority {settings.upstream_ca.name} cannot be read",
            hint="put back the file that `cloister-coordinator init` made",
        ) from error
    limits = settings.limits
    return httpx.AsyncClient(
        base_url="https://" + settings.upstream,
        verify=context,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(limits.upstream_answer_seconds, connect=limits.upstream_connect_seconds),
        # Shorter than uvicorn's 5 s in the SuperLink, so that a connection is never taken up while it is being closed.
        limits=httpx.Limits(max_connections=limits.connections, keepalive_expiry=3.0),
    )


def gateway_app(
    settings: GatewaySettings,
    client: httpx.AsyncClient,
    book: AccessBook | None = None,
    buckets: TokenBuckets | None = None,
) -> ASGIApp:
    """The gateway as an ASGI app over a client whose base address is the SuperLink's.

    Args:
        settings: Only limits and node keys are used here.
        client: From `upstream_client`, or one with a transport of a test.
        book: Collects what was served.
        buckets: Rates by address.
    """
    limits = settings.limits
    if book is None:
        book = AccessBook(limits.access_window_seconds, limits.access_lines)
    if buckets is None:  # not `or`: a table without addresses is empty, and still the one to use
        buckets = TokenBuckets(limits.requests_per_second, limits.burst)
    return _Gateway(client, settings, book, buckets)


class _Gateway:
    def __init__(
        self, client: httpx.AsyncClient, settings: GatewaySettings, book: AccessBook, buckets: TokenBuckets
    ) -> None:
        self._client, self._limits, self._book, self._buckets = client, settings.limits, book, buckets
        self._node_keys = settings.node_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        address = address_group((scope.get("client") or ("", 0))[0])
        verdict = self._judge(scope, address)
        exchange = Exchange(self._client, self._limits, receive, send)
        if isinstance(verdict, Refusal):
            self._book.note(address, REFUSED, verdict.status)
            await exchange.refuse(verdict.status)
            return
        try:
            await exchange.run(verdict)
        finally:
            self._book.note(address, verdict.path, exchange.status, exchange.bytes_in, exchange.bytes_out)

    def _judge(self, scope: Scope, address: str) -> Head | Refusal:
        if not self._buckets.take(address):
            return Refusal(429)
        verdict = judge(scope, self._limits.body_limit_bytes)
        if isinstance(verdict, Refusal):
            return verdict
        node = calling_node(verdict, self._node_keys())
        if node is None:
            return Refusal(401)
        place: Place | None = scope.get("state", {}).get("place")
        return verdict if place is None or place.admit(node) else Refusal(429)
