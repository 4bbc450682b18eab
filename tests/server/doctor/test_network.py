"""What listens at a coordinator: its own gateway and SuperLink, nobody, or somebody else."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from common.errors import ConfigError, TransportError
from common.processes import Listener, can_be_seen, listeners_of
from server.doctor import network as doctor_network
from server.doctor.network import EXECUTABLES, executable_findings, gateway_findings, knock, port_findings
from server.home import CoordinatorHome
from tests.federation_play import make_federation
from tests.gateway_play import Upstream, gateway, make_certificates, serving

pytestmark = pytest.mark.skipif(not can_be_seen(), reason="no /proc here")

ANY = "0.0.0.0"  # noqa: S104 - closed again at once
SERVICE = """
import fcntl, os, socket, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(str(os.getpid()))
lock.flush()
servers = [socket.create_server((place.split(":")[0], int(place.split(":")[1]))) for place in sys.argv[2:]]
print("ready", flush=True)
time.sleep(60)
"""


def free_port() -> int:
    with closing(socket.create_server((ANY, 0))) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    folder = tmp_path_factory.mktemp("federation")
    return make_federation(folder, folder, ()).coordinator


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def home(original: CoordinatorHome, ports: tuple[int, int]) -> CoordinatorHome:
    set_ports(original, *ports)
    return original


def set_ports(home: CoordinatorHome, outside: int, inside: int) -> None:
    text = f'name = "play"\naddress = "127.0.0.1:9999"\n[listen]\nport = {outside}\nsuperlink_port = {inside}\n'
    home.config.write_text(text)


@contextmanager
def service(home: CoordinatorHome, *places: str) -> Iterator[int]:
    """A process that holds the service's lock, and listens."""
    command = [sys.executable, "-c", SERVICE, home.lock, *places]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def levels(findings) -> list[tuple[str, str]]:
    return [(finding.subject, finding.level) for finding in findings]


def test_nobody_listens(home: CoordinatorHome) -> None:
    assert levels(port_findings(home)) == [("ports", "pass"), ("ports", "pass"), ("service", "pass")]
    assert list(gateway_findings(home)) == []


@pytest.mark.parametrize("place", [0, 1])
def test_somebody_else_holds_a_port(home: CoordinatorHome, ports: tuple[int, int], place: int) -> None:
    with closing(socket.create_server(("127.0.0.1", ports[place]))):
        assert levels(port_findings(home)).count(("ports", "fail")) == 1


def test_the_service_holds_its_ports(home: CoordinatorHome, ports: tuple[int, int]) -> None:
    with service(home, f"{ANY}:{ports[0]}", f"127.0.0.1:{ports[1]}") as process:
        (finding,) = port_findings(home)
    assert (finding.level, str(process) in finding.sentence) == ("pass", True)


def test_a_superlink_that_is_open_to_all(home: CoordinatorHome, ports: tuple[int, int]) -> None:
    with service(home, f"{ANY}:{ports[0]}", f"{ANY}:{ports[1]}"):
        assert ("SuperLink", "fail") in levels(port_findings(home))


def test_a_service_that_does_not_serve(home: CoordinatorHome, ports: tuple[int, int]) -> None:
    with service(home, f"{ANY}:{ports[0]}"):
        assert levels(port_findings(home)) == [("service", "fail")]


def test_a_service_beside_a_stranger(home: CoordinatorHome, ports: tuple[int, int]) -> None:
    with closing(socket.create_server(("127.0.0.1", ports[1]))), service(home, f"{ANY}:{ports[0]}"):
        assert levels(port_findings(home)) == [("ports", "fail"), ("service", "fail")]


def test_another_accounts_service(home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(doctor_network, "service_process", lambda _: 1)
    monkeypatch.setattr(doctor_network, "listeners_of", refuse)
    with pytest.raises(ConfigError, match="may not be looked at"):
        list(port_findings(home))


@pytest.mark.parametrize(("account", "level"), [(os.getuid(), "pass"), (os.getuid() + 1, "fail")])
def test_a_superlink_that_hides_its_sockets_is_known_by_its_account(
    home: CoordinatorHome, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch, account: int, level: str
) -> None:
    """Flower closes its processes to everybody but root."""
    hidden = 2**22 + 1

    def refuse(pids: frozenset[int]) -> tuple[Listener, ...]:
        if hidden in pids:
            raise PermissionError(13, "no")
        return listeners_of(pids)

    monkeypatch.setattr(doctor_network, "family_of", lambda pid: frozenset({pid, hidden}))
    monkeypatch.setattr(doctor_network, "listeners_of", refuse)
    monkeypatch.setattr(doctor_network.os, "getuid", lambda: account)
    with closing(socket.create_server(("127.0.0.1", ports[1]))), service(home, f"{ANY}:{ports[0]}"):
        assert {found for _, found in levels(port_findings(home))} == {level}


def test_a_system_that_does_not_tell(home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_network, "can_be_seen", lambda: False)
    assert levels(port_findings(home)) == [("ports", "warn")]


# --- the gateway -----------------------------------------------------------------------------------------------------


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_network, "service_process", lambda _: 1)


def own_files(home: CoordinatorHome) -> tuple[Path, Path, Path]:
    return home.ca_certificate, home.server_certificate, home.server_key


def test_the_gateway_refuses(home: CoordinatorHome, ports: tuple[int, int], running: None) -> None:
    with gateway(own_files(home), 1) as gate:
        set_ports(home, gate.port, ports[1])
        assert levels(gateway_findings(home)) == [("gateway", "pass")]


def test_a_superlink_in_place_of_the_gateway(home: CoordinatorHome, ports: tuple[int, int], running: None) -> None:
    with serving(Upstream(), home.server_certificate, home.server_key) as open_superlink:
        set_ports(home, open_superlink.port, ports[1])
        assert levels(gateway_findings(home)) == [("gateway", "fail")]


def test_somebody_elses_certificate(
    home: CoordinatorHome, ports: tuple[int, int], running: None, tmp_path: Path
) -> None:
    with gateway(make_certificates(tmp_path), 1) as gate:
        set_ports(home, gate.port, ports[1])
        with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            list(gateway_findings(home))


def test_a_certificate_for_another_name(home: CoordinatorHome) -> None:
    with gateway(own_files(home), 1) as gate:
        address = doctor_network.parse_address(f"127.0.0.1:{gate.port}")
        assert knock(home, address, "127.0.0.1")[0] == 404
        with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            knock(home, address, "study.example.org")


def test_no_answer(home: CoordinatorHome, running: None) -> None:
    with pytest.raises(TransportError, match="cannot be called"):
        list(gateway_findings(home))


def test_no_authority(home: CoordinatorHome, running: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(CoordinatorHome, "ca_certificate", property(lambda _: tmp_path / "gone.pem"))
    with pytest.raises(ConfigError, match="missing, or no certificate"):
        list(gateway_findings(home))


# --- Flower ----------------------------------------------------------------------------------------------------------


def test_flowers_commands_are_here() -> None:
    assert levels(executable_findings()) == [("Flower", "pass")]


def test_flowers_commands_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_network.sysconfig, "get_path", lambda _: str(tmp_path))
    (finding,) = executable_findings()
    assert finding.level == "fail"
    assert all(name in finding.sentence for name in EXECUTABLES)
