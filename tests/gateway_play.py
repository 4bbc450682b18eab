"""The gateway's surroundings in one process: a certificate authority, a recording SuperLink, clients that misbehave."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.gateway.access import AccessLine
from server.gateway.gateway import GatewaySettings, run_gateway
from server.gateway.limits import GatewayLimits

HEARTBEAT = "/v1/fleet/send-node-heartbeat"

NODE = ec.generate_private_key(ec.SECP384R1())
"""Of the one site that is enrolled at the gateway of a test."""


def node_pem(key: ec.EllipticCurvePrivateKey = NODE) -> bytes:
    """A node's public key as a coordinator keeps it."""
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, subject).strip()


def signed_headers(key: ec.EllipticCurvePrivateKey = NODE, age_seconds: float = 0.0, **changes: bytes) -> str:
    """What a node says of itself in each head, with what is to be changed before it is written in base64."""
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_seconds)
    stamp = moment.isoformat().encode("ascii")
    signature = key.sign(stamp, ec.ECDSA(hashes.SHA256()))
    said = {"public_key": node_pem(key) + b"\n", "signature": signature, **changes}
    lines = [f"flwr-{name.replace('_', '-')}: {b64encode(value).decode('ascii')}" for name, value in said.items()]
    return "\r\n".join([*lines, f"flwr-timestamp: {stamp.decode('ascii')}", ""])


def make_certificates(
    folder: Path, name: str = "ca", address: str = "127.0.0.1", age_days: float = 0.0
) -> tuple[Path, Path, Path]:
    """Write a CA, a certificate for 127.0.0.1, each good for a day, and its key: (ca, certificate, key)."""
    made = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age_days)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ca = _certificate(issuer, issuer, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=0), made)
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = _certificate(own, issuer, key, ca_key, names, made)
    paths = (folder / f"{name}.pem", folder / f"{name}-own.pem", folder / f"{name}-own.key")
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[0].write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return paths


def _certificate(subject, issuer, key, signing_key, extension, now):
    identifiers = (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
    )
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(extension, critical=True)
    for identifier in identifiers:
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(signing_key, hashes.SHA256())


@dataclass
class Seen:
    """A request as the SuperLink got it."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    whole: bool = False


@dataclass
class Upstream:
    """A stand-in for the SuperLink that accepts every request whatsoever and writes down what it got."""

    seen: list[Seen] = field(default_factory=list)
    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"content-type", b"application/protobuf")])
    answer: bytes = b"answer"
    pieces: int = 1
    sent: int = 0
    read_body: bool = True
    delay_seconds: float = 0.0
    breaks_off: bool = False
    port: int = 0

    async def __call__(self, scope, receive, send):
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        request = Seen(scope["method"], target, list(scope["headers"]))
        self.seen.append(request)
        while self.read_body and not request.whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            request.size += len(message.get("body", b""))
            request.body += message.get("body", b"")[: 2**16 - len(request.body)]
            request.whole = not message.get("more_body", False)
        await asyncio.sleep(self.delay_seconds)
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for _ in range(self.pieces):
            await send({"type": "http.response.body", "body": self.answer, "more_body": True})
            self.sent += len(self.answer)
        if self.breaks_off:
            return
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def serving(upstream: Upstream, certificate: Path, key: Path, port: int = 0) -> Iterator[Upstream]:
    """Serve the stand-in over TLS on loopback."""
    listener = socket.create_server(("127.0.0.1", port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits this
    upstream.port = listener.getsockname()[1]
    quiet = {"lifespan": "off", "ws": "none", "log_config": None, "log_level": "critical", "access_log": False}
    config = uvicorn.Config(
        upstream, loop="asyncio", http="h11", ssl_certfile=certificate, ssl_keyfile=key, timeout_keep_alive=60, **quiet
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield upstream
    finally:
        for connection in list(server.server_state.connections):
            server.servers[0].get_loop().call_soon_threadsafe(connection.transport.abort)
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


@dataclass
class Gateway:
    """A gateway that runs in a thread, and what it has told."""

    port: int
    ca: Path
    lines: list[AccessLine]

    def connect(self, tls: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection of TLS to it, for whatever bytes one likes."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return self.wrap(plain, tls)

    def wrap(self, plain: socket.socket, tls: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """TLS over a connection that is there."""
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (tls or ssl.create_default_context(cafile=self.ca)).wrap_socket(plain, server_hostname="127.0.0.1")

    def say(self, raw: bytes) -> bytes:
        """Send bytes and read one answer; nothing comes of a gateway that closes at once or is gone."""
        try:
            connection = self.connect()
        except OSError:
            return b""
        with connection:
            send_all(connection, raw)
            return read_answer(connection)


@contextmanager
def gateway(files, upstream_port: int, upstream_ca: Path | None = None, on_access=None, **limits) -> Iterator[Gateway]:
    """Run the gateway with the certificates of `make_certificates`."""
    ca, certificate, key = files
    bounds = GatewayLimits(**{"requests_per_second": 1e6, "burst": 10**6, **limits})
    upstream = f"127.0.0.1:{upstream_port}"
    keys = {node_pem()}
    settings = GatewaySettings("127.0.0.1", 0, certificate, key, upstream, upstream_ca or ca, lambda: keys, bounds)
    lines: list[AccessLine] = []
    stop, ports, failed = threading.Event(), [], []

    def run() -> None:
        try:
            run_gateway(settings, on_access or lines.append, stop, lambda _, port: ports.append(port))
        except BaseException as error:  # noqa: BLE001  handed to the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: ports or failed)
        if failed:
            raise failed[0]
        yield Gateway(ports[0], ca, lines)
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def wait_until(condition, seconds: float = 10.0) -> None:
    """Wait for something to become true, or fail."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError("waited in vain")
        time.sleep(0.01)


def send_all(connection: ssl.SSLSocket, raw: bytes) -> None:
    """Send what the other side still takes."""
    try:
        connection.sendall(raw)
    except OSError:
        return


def read_answer(connection: ssl.SSLSocket) -> bytes:
    """Read one answer: to its length when it has one, else to the end; what a reset cuts off is missing."""
    answer = b""
    try:
        while not _is_whole(answer):
            piece = connection.recv(2**16)
            if not piece:
                break
            answer += piece
    except OSError:
        pass
    return answer


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return body.endswith(b"0\r\n\r\n")


def status_of(answer: bytes) -> int:
    """The status of an answer; 0 for none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def post(
    path: str = HEARTBEAT, body: bytes = b"beat", method: str = "POST", headers: str = "", framing=None, signed=None
) -> bytes:
    """A request as a node writes it, with whatever is to be changed."""
    headers += signed_headers() if signed is None else signed
    framing = f"content-length: {len(body)}\r\n" if framing is None else framing
    head = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/protobuf\r\n{headers}{framing}\r\n"
    return head.encode("latin-1") + body


def routes_of_the_superlink() -> list[str]:
    """Every path that Flower's own application answers."""
    from flwr.superlink.main import create_app, iter_route_contexts

    return sorted({context.route.path for context in iter_route_contexts(create_app().routes)})


def spellings(path: str) -> list[str]:
    """A path as it is, and in the ways that a careless gate or the server behind it might read as that path."""
    last = path.rsplit("/", 1)[1]
    return [
        path + "/",
        path + "?",
        path + "?x=1",
        path + "#x",
        path + "%00",
        path + "%20",
        path + ";x",
        "/" + path,
        path.replace("/", "//"),
        path.replace("/", "\\"),
        path.replace("/", "/./"),
        path.replace("/", "%2f"),
        path.replace("-", "%2d") if "-" in path else "/%76" + path[2:],
        path.upper(),
        "http://" + f"127.0.0.1{path}",
        "https://" + f"gateway{path}",
        f"/v1/fleet/..{path}",
        f"/v1/fleet/get-run/../../..{path}",
        f"/v1/fleet/%2e%2e/%2e%2e{path}",
        f"/v1/fleet/..;/..{path}",
        f"/v1/fleet/pull-messages/..%2f{last}",
        f"/v1/fleet/pull-messages%2f..%2f{last}",
        f"/v1/fleet/pull-messages?{path}",
        f"/v1/fleet/pull-messages#{path}",
        f"/v1/fleet/pull-messages%0d%0aPOST%20{path}",
    ]
