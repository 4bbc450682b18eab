"""The nginx configuration says what the embedded gateway says."""

import re
from pathlib import Path

import pytest

from server.gateway.limits import GatewayLimits
from server.gateway.rules import FLEET_PATHS, FORWARDED_HEADERS

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
        "client_max_body_size {0.body_limit_bytes:d}",
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
    assert line.format(GatewayLimits()) in TEXT.replace("32m;", f"{32 * 2**20};")
