import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.processes import Listener, can_be_seen, family_of, listeners, listeners_of

pytestmark = pytest.mark.skipif(not can_be_seen(), reason="no /proc here")

CHILD = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""
ANY = "0.0.0.0"  # noqa: S104 - closed again at once


def own() -> set[tuple[str, str, int]]:
    found = listeners_of(frozenset({os.getpid()}))
    return {(one.protocol, str(one.address), one.port) for one in found}


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, ANY), (socket.AF_INET6, "::")],
)
def test_a_socket_that_listens_is_seen_and_gone_once_it_is_closed(family: int, host: str) -> None:
    if family == socket.AF_INET6 and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("no IPv6 here")
    with closing(socket.create_server((host, 0), family=family)) as server:
        place = ("tcp", host, server.getsockname()[1])
        assert place in own()
    assert place not in own()


def test_a_udp_socket_that_takes_packets_is_seen() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taking:
        taking.bind(("127.0.0.1", 0))
        assert ("udp", "127.0.0.1", taking.getsockname()[1]) in own()


def test_an_outgoing_connection_is_none() -> None:
    before = own()
    with closing(socket.create_server(("127.0.0.1", 0))) as server, closing(socket.socket()) as outgoing:
        outgoing.connect(server.getsockname())
        assert len(own() - before) == 1  # the server's own


@pytest.fixture
def child() -> Iterator[tuple[int, int]]:
    """A grandchild that listens: the number of the process between, and the port."""
    middle = f"import subprocess,sys; subprocess.run([sys.executable,'-c',{CHILD!r}])"
    process = subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True)
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        for pid in family_of(process.pid) - {process.pid}:
            os.kill(pid, 9)
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_process_started_belongs_to_it(child: tuple[int, int]) -> None:
    pid, port = child
    assert port not in {one.port for one in listeners_of(frozenset({pid}))}
    assert port in {one.port for one in listeners_of(family_of(pid))}
    assert family_of(pid) < family_of(os.getpid())


def test_all_of_the_machine(child: tuple[int, int]) -> None:
    assert child[1] in {one.port for one in listeners()}
    assert child[1] not in {port for _, _, port in own()}


def test_a_process_that_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert listeners_of(frozenset({process.pid})) == ()
    with pytest.raises(FileNotFoundError):
        listeners(process.pid)


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert not can_be_seen(tmp_path)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        (ANY, False),
        ("::", False),
        ("::ffff:192.0.2.7", False),
        ("192.0.2.7", False),
    ],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert Listener("tcp", ipaddress.ip_address(address), 80, 1).is_on_loopback is loopback


def test_a_listener_in_words() -> None:
    assert str(Listener("tcp", ipaddress.ip_address("::1"), 80, 1)) == "tcp [::1]:80"
    assert str(Listener("udp", ipaddress.ip_address("192.0.2.7"), 80, 1)) == "udp 192.0.2.7:80"
