"""The nginx configuration says what the embedded gateway says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from server.gateway.limits import GatewayLimits
from server.gateway.rules import FLEET_PATHS, FORWARDED_HEADERS, HEADER_VALUE_LIMIT, body_limit
from server.home import CoordinatorHome
from server.initialise import initialise

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
HOME = "/var/lib/cloister/coordinator"
KIB = 1024

TEXT = (Path(__file__).parents[2] / "docs" / "deploy" / "nginx.conf").read_text()


def test_it_passes_the_same_request_lines():
    line = re.search(r'"~(\^POST .*\$)" \$path;', TEXT)
    assert line is not None
    rule = re.compile(line[1].replace("(?<path>", "(?P<path>"))
    for path in FLEET_PATHS:
        found = rule.match(f"POST {path} HTTP/1.1")
        assert found is not None
        assert found["path"] == path
        for other in (
            f"POST {path}/ HTTP/1.1",
            f"GET {path} HTTP/1.1",
            f"POST {path}? HTTP/1.1",
            f"POST {path} HTTP/2.0",
        ):
            assert rule.match(other) is None
    names = re.search(r"\(\?:([a-z|-]+)\)", line[1])
    assert names is not None
    assert sorted(names[1].split("|")) == sorted(path.rsplit("/", 1)[1] for path in FLEET_PATHS)


def test_it_forwards_the_same_headers():
    forwarded = re.findall(r"proxy_set_header (flwr-[a-z-]+) \$http_([a-z_]+);", TEXT)
    assert {name.encode() for name, _ in forwarded} == FORWARDED_HEADERS
    assert all(name.replace("-", "_") == variable for name, variable in forwarded)


@pytest.mark.parametrize(
    "line",
    [
        "rate={0.requests_per_second:.0f}r/s",
        "burst={0.burst} ",
        "limit_conn addresses {0.connections_per_address};",
        "limit_conn all {0.connections};",
        "client_header_timeout {0.head_seconds:.0f}s;",
        "client_body_timeout {0.idle_seconds:.0f}s;",
        "keepalive_timeout {0.keep_alive_seconds}s;",
        "proxy_connect_timeout {0.upstream_connect_seconds:.0f}s;",
        "proxy_read_timeout {0.upstream_answer_seconds:.0f}s;",
    ],
)
def test_it_keeps_the_same_limits(line):
    assert line.format(GatewayLimits()) in TEXT


def test_a_body_is_as_long_at_most_as_the_gateway_lets_it_be():
    """By the location that takes a path; none is bounded for all, where a location that forgets it would inherit it."""
    found = re.findall(r"location (= )?(\S+) \{\s+client_max_body_size (\d+)([km]);", TEXT)
    bounds = {(bool(exact), path): int(size) * (KIB**2 if unit == "m" else KIB) for exact, path, size, unit in found}
    assert len(bounds) == TEXT.count("client_max_body_size") == TEXT.count("location ") == TEXT.count("proxy_pass ")
    for path in FLEET_PATHS:
        allowed = bounds.get((True, path), bounds[False, "/"])
        assert allowed == body_limit(path, GatewayLimits().body_limit_bytes), path


def test_headers_that_pass_have_plain_values_and_a_signature_is_there():
    """nginx tries no regular expression on an empty value: only with bars between them is one missing noticed."""
    signed, version = (re.compile(found.replace("[|]", r"\|")) for found in re.findall(r'"~(\^\[A-Z.*\$)" 0;', TEXT))
    assert signed.match("MEk=|2026-11-21T18:00:00+00:00|MEQ=")
    assert version.match("flwr|1.41.0|supernode")
    assert version.match("||")
    long = "x" * (HEADER_VALUE_LIMIT + 1)
    for value in ("|stamp|MEQ=", "MEk=||MEQ=", "MEk=|stamp|", "a,b|stamp|MEQ=", f"{long}|stamp|MEQ=", "ü|stamp|MEQ="):
        assert not signed.match(value)
    assert not version.match(f"flwr|{long}|supernode")


@pytest.mark.skipif(NGINX is None, reason="no nginx here")
def test_nginx_takes_it_with_a_home_of_a_coordinator(tmp_path):
    """Its own check, with the home, the port and the places of its files that are not on this machine replaced."""
    home = CoordinatorHome(tmp_path / "coordinator")
    initialise(home, "study", "127.0.0.1:9443", begin=lambda _: None)
    text = TEXT.replace(f"{HOME}/", f"{home.path}/").replace("listen 443 ", "listen 127.0.0.1:9443 ")
    text = text.replace("/var/log/nginx/", f"{tmp_path}/")
    assert verified(tmp_path, text) == ""
    assert "unknown" in verified(tmp_path, text.replace("if ($unsigned)", "if ($unsinged)"))


def verified(folder: Path, text: str) -> str:
    """What nginx says against a configuration."""
    (folder / "nginx.conf").write_text(text)
    command: list[str | Path] = [NGINX or "", "-t", "-q", "-c", folder / "nginx.conf", "-g", f"pid {folder}/nginx.pid;"]
    command += ["-e", folder / "early.log"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr
