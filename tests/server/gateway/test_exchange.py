"""Bodies stream through within their limit, in bounded memory; what breaks on the way never looks whole."""

import ssl
import time
from pathlib import Path

import httpx
import pytest

from common.envelope import SHORT_ENVELOPE_BYTES
from server.gateway.access import NO_ANSWER
from server.gateway.rules import ANSWER_PATH
from tests.fleet_play import announced
from tests.gateway_play import (
    HEARTBEAT,
    Upstream,
    gateway,
    make_certificates,
    post,
    read_answer,
    send_all,
    serving,
    signed_headers,
    status_of,
    wait_until,
)

MEGABYTE = 2**20
LIMIT = MEGABYTE
PUSH = "/v1/fleet/push-object"
CHUNKED = "transfer-encoding: chunked\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def upstream(files):
    with serving(Upstream(), *files[1:]) as served:
        yield served


def chunks(body: bytes, size: int = 2**16) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_of_exactly_the_limit_passes(files, upstream, framing):
    body = bytes(range(256)) * (LIMIT // 256)
    request = post(PUSH, body) if framing == "length" else post(PUSH, chunks(body), framing=CHUNKED)
    with gateway(files, upstream.port, body_limit_bytes=LIMIT) as gate:
        assert status_of(gate.say(request)) == 200
    (seen,) = upstream.seen
    assert seen.whole
    assert seen.size == LIMIT
    assert bytes(seen.body) == body[: 2**16]


def test_a_body_that_says_it_is_too_long_never_arrives(files, upstream):
    with gateway(files, upstream.port, body_limit_bytes=LIMIT) as gate:
        assert status_of(gate.say(post(PUSH, b"", framing=f"content-length: {LIMIT + 1}\r\n"))) == 413
        wait_until(lambda: gate.lines)
    assert upstream.seen == []
    assert gate.lines[0].status == 413


def test_a_chunked_body_that_goes_on_is_cut_off_at_the_limit(files, upstream):
    with gateway(files, upstream.port, body_limit_bytes=LIMIT) as gate:
        with gate.connect() as connection:
            send_all(connection, post(PUSH, chunks(bytes(20 * LIMIT)), framing=CHUNKED))
            assert status_of(read_answer(connection)) in (413, NO_ANSWER)  # a reset may overtake the answer
        wait_until(lambda: gate.lines)
    (line,) = gate.lines
    assert (line.path, line.status) == (PUSH, 413)
    assert LIMIT < line.bytes_in < 2 * LIMIT
    assert len(upstream.seen) == 1
    assert upstream.seen[0].size <= LIMIT
    assert not upstream.seen[0].whole


def test_an_answer_is_held_whole_and_cut_off_at_a_short_envelope_with_its_head(files, upstream):
    longest = announced(bytes(SHORT_ENVELOPE_BYTES))
    with gateway(files, upstream.port) as gate:
        assert status_of(gate.say(post(ANSWER_PATH, chunks(longest), framing=CHUNKED))) == 200
        with gate.connect() as connection:
            send_all(connection, post(ANSWER_PATH, chunks(bytes(SHORT_ENVELOPE_BYTES + 2**17)), framing=CHUNKED))
            assert status_of(read_answer(connection)) in (413, NO_ANSWER)
    assert [(seen.whole, seen.size) for seen in upstream.seen] == [(True, len(longest))]


def test_a_long_body_with_a_broken_end_never_looks_whole(files, upstream):
    broken = chunks(bytes(MEGABYTE)).removesuffix(b"0\r\n\r\n") + b"zz\r\n"
    with gateway(files, upstream.port) as gate:
        assert status_of(gate.say(post(PUSH, broken, framing=CHUNKED))) in (400, NO_ANSWER)
        wait_until(lambda: len(gate.lines) == 2)
    assert {line.status for line in gate.lines} == {400, NO_ANSWER}
    assert not any(seen.whole for seen in upstream.seen)


@pytest.mark.parametrize("size", [100, MEGABYTE])
def test_a_client_that_leaves_in_the_middle_leaves_half_a_request(files, upstream, size):
    with gateway(files, upstream.port) as gate:
        with gate.connect() as connection:
            connection.sendall(post(PUSH, bytes(size), framing=f"content-length: {size + 10}\r\n"))
        wait_until(lambda: gate.lines)
        assert gate.lines[0].status == NO_ANSWER
        assert status_of(gate.say(post())) == 200
    pushed = [seen for seen in upstream.seen if seen.target == PUSH.encode()]
    assert len(pushed) == (size > 2**16)
    assert not any(seen.whole for seen in pushed)


def test_a_client_that_pauses_in_a_body_is_told_so(files, upstream):
    with gateway(files, upstream.port, idle_seconds=0.2) as gate:
        assert status_of(gate.say(post(PUSH, b"half", framing="content-length: 8\r\n"))) == 408
    assert upstream.seen == []


@pytest.mark.parametrize(("size", "status"), [(100, 408), (20_000, 200)])
def test_a_body_must_keep_a_pace_after_a_while(files, upstream, size, status):
    """Ten pieces in 0.5 s: 200 or 40,000 bytes a second, where 10,000 are asked for after 0.2 s."""
    pace = {"body_grace_seconds": 0.2, "least_bytes_per_second": 10_000.0}
    with gateway(files, upstream.port, **pace) as gate, gate.connect() as connection:
        connection.sendall(post(PUSH, b"", framing=f"content-length: {size}\r\n"))
        for _ in range(10):
            send_all(connection, bytes(size // 10))
            time.sleep(0.05)
        assert status_of(read_answer(connection)) in {status, status if status == 200 else NO_ANSWER}
    assert len(upstream.seen) == (status == 200)


def test_a_body_that_only_drips_ends_with_the_request(files, upstream):
    with gateway(files, upstream.port, idle_seconds=5.0, request_seconds=0.5) as gate, gate.connect() as connection:
        connection.sendall(post(PUSH, b"", framing="content-length: 100\r\n"))
        started = time.monotonic()
        for _ in range(20):
            send_all(connection, b"x")
            time.sleep(0.05)
        assert status_of(read_answer(connection)) in (408, NO_ANSWER)
        assert time.monotonic() - started < 3
    assert upstream.seen == []


def test_a_superlink_that_does_not_answer_in_time(files, upstream):
    upstream.delay_seconds = 1.0
    with gateway(files, upstream.port, upstream_answer_seconds=0.2) as gate:
        started = time.monotonic()
        assert status_of(gate.say(post())) == 504
        assert time.monotonic() - started < 1.0


def test_a_superlink_that_is_down_is_said_at_once_and_one_that_is_back_serves(files):
    with serving(Upstream(), *files[1:]) as first:
        port = first.port
    with gateway(files, port) as gate:
        for _ in range(2):
            started = time.monotonic()
            assert status_of(gate.say(post())) == 503
            assert time.monotonic() - started < 1.0
        with serving(Upstream(), *files[1:], port) as back:
            assert status_of(gate.say(post())) == 200
        assert status_of(gate.say(post())) == 503
        with serving(Upstream(), *files[1:], port) as back_again:
            assert status_of(gate.say(post())) == 200
    assert [len(served.seen) for served in (back, back_again)] == [1, 1]


@pytest.mark.parametrize("length", [[], [(b"content-length", b"%d" % (4 * MEGABYTE))]])
def test_an_answer_that_breaks_off_does_not_look_whole(files, upstream, length):
    upstream.headers, upstream.answer, upstream.pieces = upstream.headers + length, bytes(2**16), 8
    upstream.breaks_off = True
    with gateway(files, upstream.port) as gate, gate.connect() as connection:
        connection.sendall(post())
        answer = read_answer(connection)
        assert status_of(answer) == 200
        assert 2**18 < len(answer) < MEGABYTE
        assert not answer.endswith(b"0\r\n\r\n")


def test_an_answer_before_the_body_was_read_comes_through(files, upstream):
    upstream.read_body, upstream.status = False, 401
    with gateway(files, upstream.port) as gate:
        assert status_of(gate.say(post(PUSH, bytes(4 * MEGABYTE)))) == 401


def test_what_a_slow_reader_does_not_take_is_not_fetched(files, upstream):
    upstream.answer, upstream.pieces = bytes(2**16), 3200  # 200 MiB
    before = resident_bytes()
    with gateway(files, upstream.port, idle_seconds=0.5) as gate, gate.connect() as connection:
        connection.sendall(post("/v1/fleet/pull-object"))
        wait_until(lambda: upstream.sent > 0)
        wait_until(lambda: gate.lines)
        assert upstream.sent < 64 * MEGABYTE  # what the system's own buffers take, and no more
    assert resident_bytes() - before < 32 * MEGABYTE
    assert gate.lines[0].bytes_out < 32 * MEGABYTE


@pytest.mark.parametrize("size", [24 * MEGABYTE, pytest.param(200 * MEGABYTE, marks=pytest.mark.slow)])
def test_memory_stays_bounded_while_much_streams_both_ways(files, upstream, size):
    upstream.answer, upstream.pieces = bytes(2**16), size // 2**16
    piece, most, received = b"%x\r\n" % 2**16 + bytes(2**16) + b"\r\n", 0, 0
    with gateway(files, upstream.port, body_limit_bytes=2 * size) as gate, gate.connect() as connection:
        connection.sendall(post(PUSH, piece, framing=CHUNKED))
        before = resident_bytes()
        for _ in range(size // 2**16 - 1):
            connection.sendall(piece)
            most = max(most, resident_bytes())
        connection.sendall(b"0\r\n\r\n")
        while received < size:
            received += len(connection.recv(2**16))
            most = max(most, resident_bytes())
    assert upstream.seen[0].size == size
    assert upstream.seen[0].whole
    assert most - before < 16 * MEGABYTE


def test_the_time_a_request_gains_is_small(files, upstream):
    said = dict(line.split(": ", 1) for line in signed_headers().splitlines())
    request = {"content": b"beat", "headers": {"content-type": "application/protobuf", **said}}

    def best(port: int) -> float:
        times = []
        with httpx.Client(verify=ssl.create_default_context(cafile=files[0])) as client:
            for _ in range(30):
                started = time.perf_counter()
                assert client.post("https://" + f"127.0.0.1:{port}{HEARTBEAT}", **request).status_code == 200
                times.append(time.perf_counter() - started)
        return min(times)

    with gateway(files, upstream.port) as gate:
        assert best(gate.port) - best(upstream.port) < 0.010
