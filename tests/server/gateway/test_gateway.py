"""From outside, over TLS: nothing but the calls of a node reaches the SuperLink, in whatever spelling."""

import ssl
from functools import cache

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import ConfigError, TransportError
from server.gateway.access import REFUSED
from server.gateway.rules import ANSWER_PATH, FLEET_PATHS, FORWARDED_HEADERS
from tests.fleet_play import announced
from tests.gateway_play import (
    HEARTBEAT,
    NODE,
    Upstream,
    gateway,
    make_certificates,
    post,
    routes_of_the_superlink,
    serving,
    signed_headers,
    spellings,
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


@pytest.fixture(autouse=True)
def _forget(upstream):
    fresh = Upstream(port=upstream.port)
    vars(upstream).update(vars(fresh))


@pytest.fixture(scope="module")
def gate(files, upstream):
    with gateway(files, upstream.port) as served:
        yield served


@pytest.fixture(scope="module")
def superlink_paths():
    return routes_of_the_superlink()


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_every_route_of_the_superlink_in_every_spelling(gate, upstream, superlink_paths, step):
    assert len(superlink_paths) >= 76
    assert set(FLEET_PATHS) < set(superlink_paths)
    inside = set(superlink_paths) - set(FLEET_PATHS)
    tried = {*superlink_paths[::step], HEARTBEAT}
    for spelling in [*inside, *(spelling for path in tried for spelling in spellings(path))]:
        answer = gate.say(post(spelling))
        assert status_of(answer) in (400, 404), spelling
        assert answer.endswith(b"\r\n\r\nrefused\n"), spelling
    assert upstream.seen == []


def test_the_calls_of_a_node_arrive_as_they_are_on_the_list(gate, upstream):
    for path in FLEET_PATHS:
        answer = gate.say(post(path, body_for(path)))
        assert status_of(answer) == 200
        assert b"answer" in answer
    assert [seen.target.decode() for seen in upstream.seen] == list(FLEET_PATHS)
    assert all(bytes(seen.body) == body_for(seen.target.decode()) and seen.whole for seen in upstream.seen)


@cache
def body_for(path):
    return announced(b"sealed") if path == ANSWER_PATH else b"body of " + path.encode()


def test_what_is_no_answer_to_a_message_never_arrives(gate, upstream):
    for body in (b"", b"\xff", announced(b"sealed")[:-1], announced(b"sealed") + b"\x28\x00"):
        answer = gate.say(post(ANSWER_PATH, body))
        assert (status_of(answer), answer.endswith(b"\r\n\r\nrefused\n")) == (400, True)
    assert upstream.seen == []


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", "GET HEAD PUT DELETE OPTIONS TRACE PATCH CONNECT post PRI".split())
def test_no_other_method_arrives(gate, upstream, superlink_paths, method, step):
    for path in [*superlink_paths[::step], HEARTBEAT]:
        assert status_of(gate.say(post(path, b"", method))) in (400, 404)
    assert upstream.seen == []


# Shapes on which two parsers in a row have disagreed elsewhere. None may put a request, or half of one, before the
# SuperLink: what would be smuggled in all of them is a call of `start-run`.
_INNER = post("/v1/control/start-run")
_CHUNKED = "transfer-encoding: chunked\r\n"
SMUGGLED = {
    "length and chunked": post(framing=f"content-length: 5\r\n{_CHUNKED}", body=b"0\r\n\r\n" + _INNER),
    "chunked and length": post(framing=f"{_CHUNKED}content-length: {5 + len(_INNER)}\r\n", body=b"0\r\n\r\n" + _INNER),
    "two lengths": post(framing=f"content-length: 0\r\ncontent-length: {len(_INNER)}\r\n", body=_INNER),
    "two lengths in one": post(framing=f"content-length: 0, {len(_INNER)}\r\n", body=_INNER),
    "signed length": post(framing="content-length: +4\r\n", body=b"beat" + _INNER),
    "negative length": post(framing="content-length: -1\r\n", body=_INNER),
    "hexadecimal length": post(framing="content-length: 0x4\r\n", body=b"beat" + _INNER),
    "no framing": post(framing="", body=_INNER),
    "odd chunked": post(framing="transfer-encoding: xchunked\r\n", body=b"0\r\n\r\n" + _INNER),
    "chunked twice": post(framing=_CHUNKED * 2, body=b"0\r\n\r\n" + _INNER),
    "chunked not last": post(framing="transfer-encoding: chunked, identity\r\n", body=b"0\r\n\r\n" + _INNER),
    "space before colon": post(framing="transfer-encoding : chunked\r\ncontent-length: 4\r\n", body=b"beat" + _INNER),
    "tab in name": post(framing="transfer\tencoding: chunked\r\ncontent-length: 4\r\n", body=b"beat" + _INNER),
    "chunk size is no number": post(framing=_CHUNKED, body=b"zz\r\nbeat\r\n0\r\n\r\n" + _INNER),
    "chunk size is negative": post(framing=_CHUNKED, body=b"-4\r\nbeat\r\n0\r\n\r\n" + _INNER),
    "chunk size has a prefix": post(framing=_CHUNKED, body=b"0x4\r\nbeat\r\n0\r\n\r\n" + _INNER),
    "chunk size overflows": post(framing=_CHUNKED, body=b"f" * 30 + b"\r\nbeat\r\n0\r\n\r\n" + _INNER),
    "chunk is longer than told": post(framing=_CHUNKED, body=b"2\r\nbeat\r\n0\r\n\r\n" + _INNER),
    "null in head": post(headers="x: \0\r\n", body=b""),
    "no host": post().replace(b"host: gateway\r\n", b""),
    "two hosts": post(headers="host: other\r\n"),
    "upgrade": post(headers="connection: upgrade\r\nupgrade: websocket\r\n"),
    "upgrade to HTTP/2": post(headers="connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.0": post().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/0.9": b"POST /v1/fleet/get-run\r\n\r\n",
    "expect": post(headers="expect: 100-continue\r\n"),
    "other type": post().replace(b"application/protobuf", b"application/json"),
    "long head": post(headers=f"x: {'a' * 20_000}\r\n"),
    "long head in one piece": post(headers=f"x: {'a' * 10_000}\r\n"),
    "many headers": post(headers="x: a\r\n" * 100),
    "not HTTP": b"\x16\x03\x01" * 100 + b"\r\n\r\n",
    "space in target": post("/v1/fleet/get-run /v1/control/start-run"),
    "beyond ASCII": post("/v1/fleet/get-r\xfcn"),
}


@pytest.mark.parametrize("shape", SMUGGLED)
def test_no_shape_smuggles_a_request_past_the_gate(gate, upstream, shape):
    answer = gate.say(SMUGGLED[shape])
    assert status_of(answer) in (400, 404)
    assert answer.endswith(b"\r\n\r\nrefused\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert upstream.seen == []


def test_a_second_request_on_a_connection_is_judged_like_the_first(gate, upstream):
    with gate.connect() as connection:
        connection.sendall(post() + post("/v1/control/start-run") + post())
        answers = b""
        while piece := connection.recv(2**16):
            answers += piece
    assert answers.count(b"HTTP/1.1 200") == 1
    assert answers.endswith(b"\r\n\r\nrefused\n")
    assert [seen.target.decode() for seen in upstream.seen] == [HEARTBEAT]


def test_only_listed_headers_arrive_and_only_listed_headers_return(gate, upstream):
    upstream.headers = [
        (b"content-type", b"application/protobuf"),
        (b"content-length", b"6"),
        (b"set-cookie", b"a=b"),
        (b"x-secret", b"c"),
        (b"location", b"https://" + b"elsewhere"),
    ]
    versions = "".join(f"flwr-{name}: v\r\n" for name in ("package-name", "package-version", "component-name"))
    wanted = signed_headers() + versions
    others = "cookie: a\r\nx-forwarded-for: b\r\nauthorization: c\r\nuser-agent: d\r\n"
    answer = gate.say(post(headers=others, signed=wanted))
    assert dict(upstream.seen[0].headers) == {
        b"host": b"127.0.0.1:%d" % upstream.port,
        b"connection": b"keep-alive",
        b"user-agent": b"cloister-gateway",
        b"accept": b"application/protobuf",
        b"accept-encoding": b"identity",
        b"content-type": b"application/protobuf",
        b"content-length": b"4",
        **dict(line.encode().split(b": ", 1) for line in wanted.splitlines()),
    }
    assert dict(upstream.seen[0].headers).keys() >= FORWARDED_HEADERS
    head = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    assert sorted(head[1:]) == [b"content-length: 6", b"content-type: application/protobuf"]


@pytest.mark.parametrize("status", [400, 401, 403, 409, 500, 503])
def test_an_error_of_the_superlink_returns_with_its_status(gate, upstream, status):
    upstream.status, upstream.headers = status, [(b"content-type", b"application/json")]
    assert status_of(gate.say(post())) == status


@pytest.mark.parametrize("who", ["nobody", "a node that is not enrolled", "an enrolled node's key, old"])
def test_what_no_enrolled_node_has_signed_is_refused_by_its_head(gate, upstream, who):
    said = {
        "nobody": "",
        "a node that is not enrolled": signed_headers(ec.generate_private_key(ec.SECP384R1())),
        "an enrolled node's key, old": signed_headers(age_seconds=400.0),
    }
    answer = gate.say(post(body=b"", framing="content-length: 1000\r\n", signed=said[who]))  # the body never comes
    assert (status_of(answer), answer.endswith(b"\r\n\r\nrefused\n")) == (401, True)
    assert upstream.seen == []


def test_an_answer_that_no_node_should_get_is_a_bad_gateway(gate, upstream):
    protobuf = (b"content-type", b"application/protobuf")
    odd = [
        (302, [protobuf]),
        (200, [(b"content-type", b"text/html")]),
        (200, [protobuf, (b"content-encoding", b"gzip")]),
    ]
    for upstream.status, upstream.headers in odd:
        assert status_of(gate.say(post())) == 502


def test_access_lines_hold_listed_paths_and_nothing_that_was_asked(gate, files, upstream):
    with gateway(files, upstream.port) as fresh:
        fresh.say(post(body=b"12345"))
        fresh.say(post("/v1/fleet/attacker-text"))
        fresh.say(b"attacker text\r\n\r\n")
        wait_until(lambda: len(fresh.lines) == 3)
    told = {
        (line.address, line.path, line.status, line.requests, line.bytes_in, line.bytes_out) for line in fresh.lines
    }
    assert told == {
        ("127.0.0.1", HEARTBEAT, 200, 1, 5, 6),
        ("127.0.0.1", REFUSED, 404, 1, 0, 0),
        ("127.0.0.1", REFUSED, 400, 1, 0, 0),
    }


def test_what_was_counted_is_told_when_serving_ends(files, upstream):
    with gateway(files, upstream.port) as fresh:
        fresh.say(post())
        wait_until(lambda: fresh.lines)
        fresh.say(post())
        fresh.say(post())
    assert [line.requests for line in fresh.lines] == [1, 2]


def test_a_line_that_cannot_be_kept_ends_the_serving(files, upstream):
    def fail(_line):
        raise ConfigError("the disk is full")

    def ask_until_it_ends() -> None:
        with gateway(files, upstream.port, on_access=fail) as fresh:
            wait_until(lambda: fresh.say(post()) == b"")

    with pytest.raises(ConfigError, match="disk"):
        ask_until_it_ends()


def test_flowers_own_client_passes(gate, upstream):
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    upstream.answer = b""
    signs = (NodeAuthHttpInterceptor(NODE, NODE.public_key()),)
    with FleetHttpClient.from_server_address(f"127.0.0.1:{gate.port}", False, gate.ca.read_bytes(), signs) as client:
        client.PullMessages(PullMessagesRequest())
    assert upstream.seen[0].target == b"/v1/fleet/pull-messages"


def test_a_client_without_the_federations_authority_gets_no_further_than_tls(gate, upstream, tmp_path):
    stranger = make_certificates(tmp_path, "stranger")[0]
    with pytest.raises(ssl.SSLCertVerificationError):
        gate.connect(ssl.create_default_context(cafile=stranger))
    with pytest.raises(httpx.TransportError), httpx.Client() as plain:
        plain.post("http://" + f"127.0.0.1:{gate.port}{HEARTBEAT}")
    assert upstream.seen == []


def test_old_tls_is_refused(gate):
    old = ssl.create_default_context(cafile=gate.ca)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        gate.connect(old)


def test_a_superlink_of_another_authority_is_not_spoken_to(files, upstream, tmp_path):
    stranger = make_certificates(tmp_path, "stranger")[0]
    with gateway(files, upstream.port, stranger) as fresh:
        assert status_of(fresh.say(post())) == 503
    assert upstream.seen == []


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_file_is_one_sentence(files, tmp_path, damaged):
    bad = list(files)
    for content in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None):
        bad[damaged] = tmp_path / "damaged.pem"
        bad[damaged].unlink(missing_ok=True) if content is None else bad[damaged].write_bytes(content)
        with pytest.raises(ConfigError, match=r"damaged\.pem") as caught, gateway(bad, 1):
            pass
        assert caught.value.hint


def test_a_key_of_another_certificate_is_one_sentence(files, tmp_path):
    other = make_certificates(tmp_path, "other")
    with pytest.raises(ConfigError, match="key values mismatch"), gateway((files[0], files[1], other[2]), 1):
        pass


def test_a_port_in_use_is_one_sentence(files, upstream):
    from server.gateway.door import open_listener

    with pytest.raises(TransportError, match=f"port {upstream.port}"):
        open_listener("127.0.0.1", upstream.port)
