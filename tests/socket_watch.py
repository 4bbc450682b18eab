"""What sockets a process has, from /proc, read in another way than the product's own doctor does."""

import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LISTENING = "0A"
TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")


@dataclass(frozen=True)
class Socket:
    """One end of a connection, or a port that waits for one."""

    table: str
    state: str
    remote_host: str
    remote_port: int


def sockets_of(process: int) -> set[Socket]:
    """Internet sockets that a process holds open now; none of a process that is gone."""
    own = set()
    with suppress(FileNotFoundError, ProcessLookupError):  # the process is gone
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile, as the one that lists this folder
                own.add(str(link.readlink()))
        return {found for table in TABLES for found in _table(process, table, own)}
    return set()


def _table(process: int, table: str, own: set[str]) -> Iterable[Socket]:
    path = Path(f"/proc/{process}/net/{table}")
    for line in path.read_text().splitlines()[1:] if path.exists() else ():
        fields = line.split()
        if f"socket:[{fields[9]}]" in own:
            host, port = fields[2].split(":")
            yield Socket(table, fields[3], _address(host), int(port, 16))


def _address(words: str) -> str:
    """The kernel writes each 32 bits of an address as one number of this machine's byte order."""
    raw = b"".join(int(words[place : place + 8], 16).to_bytes(4, "little") for place in range(0, len(words), 8))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


@dataclass
class Watch:
    """Looks at the sockets of some processes, again and again, from a thread of its own.

    Args:
        processes: Asked for at every look, since they come and go.
        seen: Everything that was there at any look.
    """

    processes: object
    seen: set[Socket] = field(default_factory=set)
    looks: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            for process in self.processes():
                self.seen |= sockets_of(process)
            self.looks += 1
            time.sleep(0.2)
