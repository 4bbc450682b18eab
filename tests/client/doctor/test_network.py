"""The way to the coordinator: a real gateway on loopback, and everything that may stand there instead of it."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from client.doctor import network as doctor_network
from client.doctor.network import (
    REFUSED_CALL,
    Refusal,
    certificate_findings,
    gateway_findings,
    knock,
    listening_findings,
    proxy_findings,
    reach_findings,
    skew_finding,
)
from client.home import SiteHome
from common.errors import AccessError, ConfigError, TransportError
from common.processes import can_be_seen
from server.gateway import exchange as gateway_exchange
from tests.federation_play import make_federation
from tests.gateway_play import Gateway, Upstream, gateway, make_certificates, serving

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def gate(files: tuple[Path, Path, Path]) -> Iterator[Gateway]:
    """A gateway; behind it is nobody, because nothing gets there."""
    with gateway(files, 1) as running:
        yield running


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


# --- the one call ----------------------------------------------------------------------------------------------------


def test_a_gateway_answers(gate: Gateway) -> None:
    refusal = knock(f"127.0.0.1:{gate.port}", gate.ca.read_text(), None)
    assert [finding.level for finding in gateway_findings("here", refusal)] == ["pass"]
    assert refusal.ahead_seconds == 0.0
    assert [finding.level for finding in certificate_findings(refusal.certificate, NOW)] == ["warn"]  # it has a day


def test_a_superlink_without_a_gateway_is_found(files: tuple[Path, Path, Path]) -> None:
    """Anything but the gateway's own refusal: the call went through, or to somebody else."""
    ca, certificate, key = files
    with serving(Upstream(), certificate, key) as open_superlink:
        refusal = knock(f"127.0.0.1:{open_superlink.port}", ca.read_text(), None)
        assert [request.target for request in open_superlink.seen] == [REFUSED_CALL.encode()]
    (finding,) = gateway_findings("here", refusal)
    assert finding.level == "fail"


@pytest.mark.parametrize("answer", [(200, b"refused\n"), (404, b"Not Found"), (404, b""), (502, b"refused\n")])
def test_only_the_gateways_own_refusal_counts(gate: Gateway, answer: tuple[int, bytes]) -> None:
    certificate = x509.load_pem_x509_certificate(gate.ca.read_bytes())
    (finding,) = gateway_findings("here", Refusal(*answer, certificate, 0.0))
    assert finding.level == "fail"


def test_a_certificate_of_another_authority(gate: Gateway, tmp_path: Path) -> None:
    other = make_certificates(tmp_path, "other")[0].read_text()
    with pytest.raises(AccessError, match="was not issued by the pinned authority"):
        knock(f"127.0.0.1:{gate.port}", other, None)


def test_a_certificate_for_another_address(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, address="127.0.0.2")
    with gateway(files, 1) as gate, pytest.raises(AccessError, match="is for another address"):
        knock(f"127.0.0.1:{gate.port}", gate.ca.read_text(), None)


def test_a_certificate_of_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as module

    class LongAgo(module.datetime):
        @classmethod
        def now(cls, tz=None):
            return module.datetime(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(module, "datetime", LongAgo)
    files = make_certificates(tmp_path)
    monkeypatch.undo()
    with gateway(files, 1) as gate, pytest.raises(AccessError, match="is not valid now"):
        knock(f"127.0.0.1:{gate.port}", gate.ca.read_text(), None)


def test_nobody_there_and_no_tls(files: tuple[Path, Path, Path]) -> None:
    port = free_port()
    with pytest.raises(TransportError, match="cannot be reached"):
        knock(f"127.0.0.1:{port}", files[0].read_text(), None)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent, pytest.raises(TransportError):
        knock(f"127.0.0.1:{silent.getsockname()[1]}", files[0].read_text(), None, patience_seconds=0.2)


def test_an_authority_that_is_none() -> None:
    with pytest.raises(ConfigError, match="no PEM certificate"):
        knock("127.0.0.1:1", "nothing", None)


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (0.0, "pass"),
        (1.9, "pass"),
        (2.0, "warn"),
        (4.9, "warn"),
        (5.0, "fail"),
        (3600.0, "fail"),
        (-59.0, "pass"),
        (-61.0, "warn"),
        (-304.0, "warn"),
        (-305.0, "fail"),
        (None, "warn"),
    ],
)
def test_clocks_apart(ahead: float | None, level: str) -> None:
    assert skew_finding(ahead).level == level


def test_the_bounds_are_flowers() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE) == (
        doctor_network.AHEAD_SECONDS,
        doctor_network.BEHIND_SECONDS,
    )


@pytest.mark.parametrize("apart", [-600, -7, 0, 7, 600])
def test_the_skew_is_measured(gate: Gateway, monkeypatch: pytest.MonkeyPatch, apart: int) -> None:
    told = f"{datetime.now(UTC) - timedelta(seconds=apart):%a, %d %b %Y %H:%M:%S GMT}"
    monkeypatch.setattr(gateway_exchange, "formatdate", lambda **_: told)
    ahead = knock(f"127.0.0.1:{gate.port}", gate.ca.read_text(), None).ahead_seconds
    assert ahead == pytest.approx(apart, abs=2.0)


@pytest.mark.parametrize("told", ["", "yesterday", "Sat, 21 Nov 2026 15:00:00"])
def test_a_gateway_that_does_not_say_its_time(gate: Gateway, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setattr(gateway_exchange, "formatdate", lambda **_: told)
    assert knock(f"127.0.0.1:{gate.port}", gate.ca.read_text(), None).ahead_seconds is None


# --- a site's own home -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    folder = tmp_path_factory.mktemp("federation")
    return make_federation(folder, folder, ("a",)).sites["a"]


@pytest.fixture
def home(original: SiteHome, tmp_path: Path) -> SiteHome:
    return SiteHome(Path(shutil.copytree(original.path, tmp_path / "home")))


def add(home: SiteHome, text: str) -> None:
    home.config.write_text(home.config.read_text() + text)


def test_the_pinned_coordinator_is_called(home: SiteHome, gate: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home pins 127.0.0.1:9999 and its own authority; where calls go is looked at, and then turned to the gate."""
    asked: list[tuple[str, str | None]] = []

    def turned(address: str, authority: str, proxy: str | None) -> Refusal:
        asked.append((address, proxy))
        assert authority.count("BEGIN CERTIFICATE") == 1
        return knock(f"127.0.0.1:{gate.port}", gate.ca.read_text(), proxy)

    monkeypatch.setattr(doctor_network, "knock", turned)
    assert [finding.level for finding in reach_findings(home, NOW)] == ["pass", "warn", "pass"]
    assert asked == [("127.0.0.1:9999", None)]


def test_a_further_authority_is_trusted_too(home: SiteHome, gate: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    add(home, f'\n[network]\nextra_ca_file = "{gate.ca}"\n')
    address = f"127.0.0.1:{gate.port}"
    monkeypatch.setattr(doctor_network, "knock", lambda _, authority, proxy: knock(address, authority, proxy))
    assert [finding.level for finding in reach_findings(home, NOW)] == ["pass", "warn", "pass"]


def test_a_site_without_a_coordinator_calls_nobody(home: SiteHome) -> None:
    home.coordinator.unlink()
    assert list(reach_findings(home, NOW)) == []


# --- proxy -----------------------------------------------------------------------------------------------------------


def test_no_proxy(home: SiteHome) -> None:
    (finding,) = proxy_findings(home)
    assert (finding.level, finding.sentence) == ("pass", "none: calls go straight to the coordinator")


def test_a_proxy_of_the_environment_without_its_password(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http:" + "//me:secret@proxy.example.org:3128")
    (finding,) = proxy_findings(home)
    assert finding.sentence == "through proxy.example.org:3128, as HTTPS_PROXY says"


def test_no_proxy_variable(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (finding,) = proxy_findings(home)
    assert finding.sentence == "NO_PROXY leaves the coordinator out of proxy.example.org:3128"


def test_the_settings_win(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example.org:3128")
    add(home, '\n[network]\nproxy = "other.example.org:8080"\n')
    (finding,) = proxy_findings(home)
    assert finding.sentence == "through other.example.org:8080, as network.proxy says"


def test_a_further_authority_that_is_missing(home: SiteHome) -> None:
    add(home, '\n[network]\nextra_ca_file = "gone.pem"\n')
    with pytest.raises(ConfigError, match=r"gone\.pem cannot be read"):
        list(proxy_findings(home))


# --- nothing listens -------------------------------------------------------------------------------------------------

NODE = """
import fcntl, os, socket, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(str(os.getpid()))
lock.flush()
server = socket.create_server(("127.0.0.1", 0)) if sys.argv[2] == "listen" else None
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not can_be_seen(), reason="no /proc here")
@pytest.mark.parametrize(("how", "level"), [("quiet", "pass"), ("listen", "fail")])
def test_a_node_that_listens_is_found(home: SiteHome, how: str, level: str) -> None:
    with subprocess.Popen([sys.executable, "-c", NODE, home.lock, how], stdout=subprocess.PIPE) as node:
        try:
            node.stdout.readline()
            (finding,) = listening_findings(home)
            assert finding.level == level
            assert str(node.pid) in finding.sentence
        finally:
            node.kill()
    (finding,) = listening_findings(home)
    assert finding.sentence == "no node runs here, so that none listens"


def test_a_system_that_does_not_tell(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_network, "running_node", lambda _: 1)
    monkeypatch.setattr(doctor_network, "can_be_seen", lambda: False)
    assert [finding.level for finding in listening_findings(home)] == ["warn"]


def test_another_accounts_node(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(doctor_network, "running_node", lambda _: 1)
    monkeypatch.setattr(doctor_network, "listeners_of", refuse)
    assert [finding.level for finding in listening_findings(home)] == ["warn"]
