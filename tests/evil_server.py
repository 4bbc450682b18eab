"""HTTPS on loopback, answering whatever bytes a test likes, and a proxy of one page."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.gateway_play import make_certificates

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\n"


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Asked], bytes | Iterator[bytes]]


def whole(body: bytes, head: bytes = OK) -> bytes:
    """A well-formed answer."""
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


@dataclass
class EvilServer:
    """A server and what it was asked."""

    authority: str
    answer: Answer
    address: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def serve(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take connections, one thread each, until the listener is closed."""
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.talk, args=(plain, tls), daemon=True).start()

    def talk(self, plain: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Answer every request of one connection."""
        with suppress(OSError), plain:
            connection = plain if tls is None else tls.wrap_socket(plain, server_side=True)
            with connection:
                while (asked := _read(connection)) is not None:
                    self.asked.append(asked)
                    self.say(connection, self.answer(asked))

    def say(self, connection: socket.socket, answer: bytes | Iterator[bytes]) -> None:
        """Send an answer piece by piece."""
        for piece in [answer] if isinstance(answer, bytes) else answer:
            if self.stop.is_set():
                raise OSError
            connection.sendall(piece)
            self.sent += len(piece)


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Asked(first.split(" ")[1], headers, body)


@contextmanager
def evil_server(folder: Path, answer: Answer, name: str = "ca") -> Iterator[EvilServer]:
    """Serve until the block ends."""
    if not (folder / f"{name}.pem").exists():
        make_certificates(folder, name)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / f"{name}-own.pem", folder / f"{name}-own.key")
    with _listening(EvilServer((folder / f"{name}.pem").read_text(), answer), tls) as server:
        yield server


@contextmanager
def proxy() -> Iterator[EvilServer]:
    """An HTTP proxy that knows CONNECT; what it was asked is in `asked`."""

    class Proxy(EvilServer):
        def say(self, connection: socket.socket, answer: bytes | Iterator[bytes]) -> None:
            host, _, port = self.asked[-1].path.rpartition(":")
            with socket.create_connection((host, int(port))) as beyond:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                threading.Thread(target=_pump, args=(beyond, connection), daemon=True).start()
                _pump(connection, beyond)

    with _listening(Proxy("", lambda _: b""), None) as server:
        yield server


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)


@contextmanager
def _listening(server: EvilServer, tls: ssl.SSLContext | None) -> Iterator[EvilServer]:
    listener = socket.create_server(("127.0.0.1", 0))
    server.address = f"127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.serve, args=(listener, tls), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
