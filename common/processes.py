"""Which ports a process listens on, read from /proc; no socket is opened for it."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.address import IPAddress

PROC = Path("/proc")

# What the kernel calls a TCP socket that listens, and a UDP socket that takes packets from anybody.
_TABLES = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
_WORD_DIGITS = 8


@dataclass(frozen=True)
class Listener:
    """A port at which somebody may call.

    Attributes:
        protocol: `tcp` or `udp`.
        address: Of this machine; the unspecified one stands for all of them.
        port: 1 to 65535.
        inode: The socket's number, by which its process is found.
        owner: Number of the account that opened it.
    """

    protocol: str
    address: IPAddress
    port: int
    inode: int
    owner: int = 0

    @property
    def is_on_loopback(self) -> bool:
        """Whether this machine alone can call."""
        mapped = getattr(self.address, "ipv4_mapped", None)
        return self.address.is_loopback or (mapped is not None and mapped.is_loopback)

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.protocol} {host}:{self.port}"


def can_be_seen(proc: Path = PROC) -> bool:
    """Whether this system tells at all: Linux does."""
    return (proc / "self" / "net" / "tcp").exists()


def listeners(pid: int | None = None, proc: Path = PROC) -> tuple[Listener, ...]:
    """Every port that is listened on in the network of a process, by whomever; of this process where left out.

    Raises:
        OSError: When the process is gone, or this system has no such files.
    """
    folder = proc / ("self" if pid is None else str(pid)) / "net"
    there = [name for name in _TABLES if name == "tcp" or (folder / name).exists()]  # IPv6 may be switched off
    found = (_table(folder / name, _TABLES[name]) for name in there)
    return tuple(listener for table in found for listener in table)


def listeners_of(pids: frozenset[int], proc: Path = PROC) -> tuple[Listener, ...]:
    """The ports that these processes listen on.

    Edge cases:
        One that is gone listens on nothing.

    Raises:
        PermissionError: When they are another account's, whose sockets are not shown.
    """
    found: dict[int, Listener] = {}
    for pid in pids:
        try:
            own = _inodes(pid, proc)
            found |= {listener.inode: listener for listener in listeners(pid, proc) if listener.inode in own}
        except (FileNotFoundError, ProcessLookupError):
            continue
    return tuple(found.values())


def family_of(pid: int, proc: Path = PROC) -> frozenset[int]:
    """A process and all that it has started, and these, as far as they still run."""
    parents = dict(_parents(proc))
    family, size = {pid}, 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return frozenset(family)


def _table(path: Path, state: str) -> Iterator[Listener]:
    for line in path.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[3] == state:
            host, _, port = fields[1].partition(":")
            yield Listener(path.name.removesuffix("6"), _address(host), int(port, 16), int(fields[9]), int(fields[7]))


def _address(digits: str) -> IPAddress:
    """The kernel prints each 32-bit word as the machine's own number."""
    words = (digits[start : start + _WORD_DIGITS] for start in range(0, len(digits), _WORD_DIGITS))
    return ipaddress.ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words))


def _inodes(pid: int, proc: Path) -> frozenset[int]:
    found = set()
    for handle in (proc / str(pid) / "fd").iterdir():
        try:
            target = str(handle.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            found.add(int(target.removeprefix("socket:[").removesuffix("]")))
    return frozenset(found)


def _parents(proc: Path) -> Iterator[tuple[int, int]]:
    for folder in proc.glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # ended meanwhile
            continue
        # The name, in parentheses, may hold anything; behind the last one come state and parent.
        yield int(folder.name), int(status.rpartition(")")[2].split()[1])
