"""Connections are few, and nobody holds one by being slow."""

import socket
import ssl
import time
from contextlib import ExitStack

import pytest

from server.gateway.access import NO_ANSWER, REFUSED
from tests.gateway_play import (
    Upstream,
    gateway,
    make_certificates,
    post,
    read_answer,
    send_all,
    serving,
    status_of,
    wait_until,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def upstream(files):
    with serving(Upstream(), *files[1:]) as served:
        yield served


def is_closed(connection: socket.socket, seconds: float = 3.0) -> bool:
    """Whether the other side ends a connection within a time."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def drip(connection: ssl.SSLSocket, raw: bytes, seconds: float) -> float:
    """Send byte by byte until the other side ends it; returns how long it bore that."""
    started = time.monotonic()
    for byte in raw:
        try:
            connection.sendall(bytes([byte]))
        except OSError:
            break
        time.sleep(seconds)
    return time.monotonic() - started


def test_a_head_that_drips_is_cut_off(files, upstream):
    with gateway(files, upstream.port, head_seconds=0.3) as gate:
        with gate.connect() as connection:
            assert drip(connection, post(), 0.02) < 2.0
        wait_until(lambda: gate.lines)
    assert (gate.lines[0].path, gate.lines[0].status) == (REFUSED, NO_ANSWER)


def test_a_second_head_that_drips_is_cut_off_too(files, upstream):
    with gateway(files, upstream.port, head_seconds=0.3) as gate, gate.connect() as connection:
        connection.sendall(post())
        assert status_of(read_answer(connection)) == 200
        assert drip(connection, post(), 0.02) < 2.0


def test_blank_lines_are_no_head(files, upstream):
    with gateway(files, upstream.port, head_seconds=0.3) as gate, gate.connect() as connection:
        assert drip(connection, b"\r\n" * 100, 0.02) < 2.0


def test_a_client_that_says_nothing_is_cut_off(files, upstream):
    with gateway(files, upstream.port, head_seconds=0.2) as gate, gate.connect() as connection:
        assert is_closed(connection)


def test_a_handshake_that_never_comes_is_cut_off(files, upstream):
    with gateway(files, upstream.port, handshake_seconds=0.2) as gate:
        with socket.create_connection(("127.0.0.1", gate.port)) as silent:
            assert is_closed(silent)
        wait_until(lambda: gate.lines)
    assert (gate.lines[0].path, gate.lines[0].status) == (REFUSED, NO_ANSWER)


def test_a_resting_connection_is_closed_and_a_busy_one_is_kept(files, upstream):
    with gateway(files, upstream.port, keep_alive_seconds=1, head_seconds=0.3) as gate, gate.connect() as connection:
        for _ in range(3):
            connection.sendall(post())
            assert status_of(read_answer(connection)) == 200
            time.sleep(0.4)  # longer than a head may take, shorter than a connection may rest
        assert is_closed(connection)


def test_strangers_are_counted_before_tls_and_the_first_makes_way(files, upstream):
    with gateway(files, upstream.port, strangers_per_address=2) as gate:
        silent = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(3)]
        assert is_closed(silent[0])
        assert not is_closed(silent[2], 0.2)
        for connection in silent:
            connection.close()
        wait_until(lambda: gate.lines)
    assert (gate.lines[0].path, gate.lines[0].status) == (REFUSED, NO_ANSWER)


def test_a_node_keeps_its_connections_and_has_so_many(files, upstream):
    few = {"strangers_per_address": 1, "connections_per_node": 2}
    with gateway(files, upstream.port, **few) as gate, gate.connect() as first, gate.connect() as second:
        for connection, status in ((first, 0), (second, 200)):  # the first made way before it was known
            send_all(connection, post())
            assert status_of(read_answer(connection)) == status
        with gate.connect() as third:
            third.sendall(post())
            assert status_of(read_answer(third)) == 200
            for _ in range(5):
                socket.create_connection(("127.0.0.1", gate.port)).close()
            second.sendall(post())
            assert status_of(read_answer(second)) == 200
            assert status_of(gate.say(post())) == 429


@pytest.mark.parametrize("kind", ["slow bodies", "slow heads", "no TLS"])
def test_strangers_from_a_few_addresses_do_not_keep_a_node_out(files, upstream, kind):
    """The places are eight; before, these forty connections held them all for five minutes."""
    bounds = {"connections": 8, "strangers": 4, "strangers_per_address": 2}
    said = {
        "slow bodies": post(framing="content-length: 60000\r\n", body=b"x", signed=""),
        "slow heads": b"POST",
        "no TLS": b"",
    }
    with gateway(files, upstream.port, **bounds) as gate, ExitStack() as held:
        for number in range(40):
            plain = socket.create_connection(("127.0.0.1", gate.port), 5, (f"127.0.0.{2 + number % 4}", 0))
            held.enter_context(plain)
            if kind != "no TLS":
                connection = held.enter_context(gate.wrap(plain))
                send_all(connection, said[kind])
        for _ in range(3):
            assert status_of(gate.say(post())) == 200


def test_places_come_back_whatever_became_of_those_who_had_them(files, upstream):
    with gateway(files, upstream.port, connections=6, strangers=3, handshake_seconds=0.2, head_seconds=0.2) as gate:
        for _ in range(4):
            left = gate.connect()
            left.close()
            socket.create_connection(("127.0.0.1", gate.port)).close()
            with socket.create_connection(("127.0.0.1", gate.port)) as plain:
                plain.sendall(post())
            with gate.connect() as half:
                send_all(half, post()[:10])
            time.sleep(0.3)
            assert status_of(gate.say(post())) == 200


def test_too_many_requests_are_refused_and_too_many_connections(files, upstream):
    upstream.seen.clear()
    with gateway(files, upstream.port, requests_per_second=0.01, burst=4) as gate, gate.connect() as connection:
        statuses = []
        for _ in range(4):  # one token went for the connection
            connection.sendall(post())
            statuses.append(status_of(read_answer(connection)))
        assert statuses == [200, 200, 200, 429]
        assert len(upstream.seen) == 3
        assert is_closed(connection)
        assert gate.say(post()) == b""


def test_stopping_ends_idle_and_busy_connections_soon(files):
    with serving(Upstream(delay_seconds=30.0), *files[1:]) as slow:
        with gateway(files, slow.port) as gate:
            idle, busy = gate.connect(), gate.connect()
            busy.sendall(post())
            wait_until(lambda: slow.seen)
            started = time.monotonic()
        assert time.monotonic() - started < 3.0
        assert is_closed(idle)
        assert is_closed(busy)
        idle.close()
        busy.close()
