"""The listening side of the gateway: connections are counted before TLS, and nobody may be slow on purpose."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from common.errors import ConfigError, TransportError
from server.gateway.access import NO_ANSWER
from server.gateway.limits import GatewayLimits, TokenBuckets, address_group
from server.gateway.places import Place, Places
from server.gateway.rules import HEAD_LIMIT_BYTES, REFUSED_BODY, REFUSED_HEADERS

OnRefused = Callable[[str, int], None]
"""Told of what is refused before it is a request: the group of the address, and the status."""

# uvicorn logs each odd thing that it is sent; those are counted by `server.gateway.access`. A fault of ours stays.
_LOG = logging.getLogger("cloister.gateway")
_LOG.addFilter(lambda record: bool(record.exc_info and isinstance(record.exc_info[1], Exception)))


def outside_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with the coordinator's certificate.

    Raises:
        ConfigError: When certificate or key cannot be read or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(
            f"the gateway's certificate {certificate.name} and key {key.name} cannot be used: {_why(error)}",
            hint="make them anew with `cloister-coordinator init`, or put back the ones that belong together",
        ) from error
    return context


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate and key in PEM").lower().replace("_", " ")
    return (error.strerror or "cannot be read").lower()


def open_listener(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Args:
        host: A name or address of this machine.
        port: 0 for a free one.

    Raises:
        TransportError: When the address is not of this machine, or the port is in use or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        why = (error.strerror or "no such address").partition(" (")[0].lower()  # Python adds an aside
        raise TransportError(
            f"the gateway cannot listen on {host} port {port}: {why}",
            hint="see which program holds the port, or choose another address in the coordinator's config",
        ) from error
    listener.setblocking(False)
    return listener


class Door:
    """Accepts connections up to the limits, agrees on TLS, and hands their requests to an ASGI app.

    Guarantees:
        At most `connections` are open at once, those included that have not agreed on TLS yet; `server.gateway.places`
        says of whom. The app finds a connection's place as `place` in the state of its scope. A connection ends when a
        handshake, a head or a pause takes longer than its limit.

    Args:
        app: Gets every request that can be parsed.
        listener: From `open_listener`; closed by `close`.
        tls: From `outside_tls`.
        limits: The bounds.
        buckets: Rates by address, shared with the app: a connection costs as much as a request.
        on_refused: Told of what never became a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        tls: ssl.SSLContext,
        limits: GatewayLimits,
        buckets: TokenBuckets,
        on_refused: OnRefused,
    ) -> None:
        self._listener, self._tls, self._limits, self._on_refused = listener, tls, limits, on_refused
        self._buckets = buckets
        self._places = Places(limits)
        self._state = ServerState()
        self._guests: set[asyncio.Task[None]] = set()
        self._config = _parser_config(app, limits)

    async def accept(self) -> None:
        """Let connections in until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._listener)
            except OSError:  # too many open files, or gone again: those inside go on
                await asyncio.sleep(0.05)
                continue
            self._receive(connection, (str(peer[0]), int(peer[1])))
            await asyncio.sleep(0)  # a flood of connections must not starve those that are in

    def _receive(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        address = address_group(peer[0])
        if not self._buckets.take(address):
            connection.close()
            self._on_refused(address, NO_ANSWER)
            return
        place = self._places.enter(address)
        guest = asyncio.get_running_loop().create_task(self._host(connection, peer, place))
        place.on_evicted = lambda: self._send_away(guest, address)
        self._guests.add(guest)
        guest.add_done_callback(lambda _: self._see_off(guest, connection, place))

    def _send_away(self, guest: asyncio.Task[None], address: str) -> None:
        guest.cancel()
        self._on_refused(address, NO_ANSWER)

    def _see_off(self, guest: asyncio.Task[None], connection: socket.socket, place: Place) -> None:
        """Also of a guest that was sent away before it began."""
        self._guests.discard(guest)
        connection.close()
        place.leave()

    async def _host(self, connection: socket.socket, peer: tuple[str, int], place: Place) -> None:
        """Keep a place from the first byte to the last."""
        patience = self._limits.handshake_seconds
        guest: DoorConnection | None = None
        try:
            # asyncio sets this only for sockets made with the number of TCP, which a listener's are not; without it the
            # body of an answer waits 40 ms for its head to be acknowledged.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, guest = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: DoorConnection(self._config, self._state, self._limits, peer, self._on_refused, place),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=patience,
                ssl_shutdown_timeout=patience,
            )
            await guest.closed.wait()
        except OSError:  # no TLS, or not in time
            self._on_refused(place.address, NO_ANSWER)
        finally:
            if guest is not None and not guest.closed.is_set():  # asyncio of Python 3.11.2 cannot abort a closed one
                guest.transport.abort()

    async def close(self, patience_seconds: float = 1.0) -> None:
        """Stop listening, let requests under way end within the patience, then cut what is left."""
        self._listener.close()
        for guest in list(self._state.connections):
            guest.shutdown()
        if self._guests:
            await asyncio.wait(self._guests, timeout=patience_seconds)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in [*self._guests, *self._state.tasks]:
            task.cancel()
        await asyncio.gather(*self._guests, *self._state.tasks, return_exceptions=True)


def _parser_config(app: ASGIApp, limits: GatewayLimits) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=H11Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=limits.keep_alive_seconds,
        h11_max_incomplete_event_size=HEAD_LIMIT_BYTES,
    )
    config.load()
    return config


class _Parser(h11.Connection):
    """h11, and the one check that a scope cannot carry: `?` with nothing behind it looks there like no query at all."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request) and b"?" in event.target:
            raise h11.RemoteProtocolError("a query is not passed on")
        return event


class DoorConnection(H11Protocol):
    """uvicorn's connection with deadlines for heads and for readers, a fixed refusal and no log lines of its own."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: GatewayLimits,
        peer: tuple[str, int],
        on_refused: OnRefused,
        place: Place,
    ) -> None:
        super().__init__(config, state, {"place": place})
        self.logger, self.access_log = _LOG, False
        self.conn = _Parser(h11.SERVER, HEAD_LIMIT_BYTES)
        self.closed = asyncio.Event()
        self._limits, self._peer, self._on_refused = limits, peer, on_refused
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first head."""
        super().connection_made(transport)
        self.client = self._peer  # as it was accepted: the socket may not know it any more
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Parse, unless the last answer was given."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch_head()

    def pause_writing(self) -> None:
        """Give the reader a deadline: what it does not take is kept here."""
        super().pause_writing()
        self._reader_timer = self.loop.call_later(self._limits.idle_seconds, self._too_slow)

    def resume_writing(self) -> None:
        """Go on: the reader took what it was sent."""
        super().resume_writing()
        _cancel(self._reader_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        _cancel(self._head_timer)
        _cancel(self._reader_timer)
        super().connection_lost(exc)
        self.closed.set()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no HTTP with the fixed refusal, or cut it off when an answer is under way."""
        self._refuse(400)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = h11.Response(status_code=400, headers=list(REFUSED_HEADERS), reason=b"Bad Request")
            for event in (answer, h11.Data(data=REFUSED_BODY), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _refuse(self, status: int) -> None:
        self._on_refused(address_group(self._peer[0]), status)
        if self.cycle is not None:  # a request whose body broke off: the app must not answer behind the refusal
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _watch_head(self) -> None:
        """Run the deadline while a head is under way: from the connection, or from the first byte of a next one."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            _cancel(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._refuse(NO_ANSWER)
        self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
