import json
import time

import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse

import common.channel
from common.channel import CallError, Channel
from common.errors import AccessError, ConfigError, TransportError
from tests.evil_server import OK, evil_server, proxy, whole
from tests.gateway_play import make_certificates

PATH = "/v1/fleet/activate-node"
GOOD = ActivateNodeResponse(node_id=7).SerializeToString()


def head(text: str) -> bytes:
    return f"HTTP/1.1 {text}\r\n".encode("latin-1")


@pytest.fixture
def call(tmp_path):
    """Ask a server that answers so; gives the server, and what came of it."""

    def run(answer, **options):
        with evil_server(tmp_path, answer if callable(answer) else lambda _: answer) as server:
            settings = {"proxy": "", "timeout_seconds": 5.0, **options}
            channel = Channel(server.address, server.authority, "SuperNode", **settings)
            try:
                return server, ask(channel)
            finally:
                channel.close()

    return run


def ask(channel):
    try:
        return channel.call(PATH, ActivateNodeRequest(public_key=b"key"), ActivateNodeResponse)
    except TransportError as error:
        return error


# --- a channel -------------------------------------------------------------------------------------------------------


def test_a_call_posts_one_message_and_reads_the_answer(call):
    server, answer = call(whole(GOOD), headers=lambda: {"x-own": "each call"})
    assert answer.node_id == 7
    (asked,) = server.asked
    assert (asked.path, asked.headers["x-own"], asked.headers["content-type"]) == (
        PATH,
        "each call",
        common.flower.MEDIA_TYPE,
    )
    assert ActivateNodeRequest.FromString(asked.body).public_key == b"key"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
@pytest.mark.parametrize(
    "place", ["/v1/fleet/get-fab", "https:" + "//127.0.0.1:1/x", "//", "http:" + "//[", "https:" + "//x.\x7f/", ""]
)
def test_no_redirect_is_followed(call, status, place):
    server, error = call(whole(b"", head(status) + f"location: {place}\r\n".encode("latin-1")))
    assert isinstance(error, TransportError)
    assert (len(server.asked), server.connections) == (1, 1)


def test_what_an_answer_sets_does_not_go_out_again(tmp_path):
    cookie = OK + b"set-cookie: trace=1; path=/\r\n"
    with evil_server(tmp_path, lambda _: whole(GOOD, cookie)) as server:
        channel = Channel(server.address, server.authority, "SuperNode", proxy="")
        assert [ask(channel).node_id for _ in range(2)] == [7, 7]
        channel.close()
    assert ["cookie" in asked.headers for asked in server.asked] == [False, False]


def endless(first: bytes, piece: bytes):
    def answer(_):
        yield first
        while True:
            yield piece

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        endless(OK + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"),
        endless(OK + b"\r\n", bytes(65536)),
        endless(OK + b"content-length: 99999999999\r\n\r\n", bytes(65536)),
    ],
    ids=["chunked", "to the end", "declared"],
)
def test_a_stream_without_end_is_cut_off_at_the_limit(call, answer):
    server, error = call(answer, limit_bytes=1 << 20)
    assert isinstance(error, CallError)
    assert "more than 2097152 bytes" in error.message
    assert server.sent < 16 << 20  # what the two kernels hold between them


def test_an_error_with_a_huge_body_is_read_no_further_than_its_code_needs(call):
    server, error = call(endless(head("500 No") + b"\r\n", bytes(65536)))
    assert (error.status, error.code) == (500, 0)
    assert server.sent < 16 << 20


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (json.dumps({"code": 2004, "message": "no"}).encode(), 2004),
        (b'{"code": true}', 0),
        (b'{"code": %s}' % (b"9" * 4000), 0),
        (b'{"code": -1}', 0),
        (b"[" * 60_000, 0),
        (b'{"code":' * 9_000, 0),
        (b"[]", 0),
        (b"\xff", 0),
        (b"", 0),
    ],
    ids=["flower", "true", "long", "negative", "deep list", "deep table", "list", "no text", "nothing"],
)
def test_of_an_error_only_flowers_code_counts(call, body, code):
    _, error = call(whole(body, head("400 Bad")))
    assert (type(error), error.status, error.code) == (CallError, 400, code)
    assert len(error.message) < 200


def test_something_that_is_no_such_message_is_an_error(call):
    _, error = call(whole(b"\xff\xff\xff"))
    assert isinstance(error, CallError)
    assert "no Flower message" in error.message


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x00" * 10, b"HTTP/9.9 x\r\n\r\n", OK + b"content-length: 5\r\n\r\nab", OK + b"content-length: -1\r\n\r\n"],
    ids=["nothing", "zeros", "version", "short", "negative"],
)
def test_what_is_no_http_is_an_error(call, answer):
    def once(_):
        yield answer
        raise OSError

    _, error = call(once)
    assert isinstance(error, TransportError)


def slowly(*pieces: bytes):
    def answer(_):
        for piece in pieces:
            for place in range(len(piece)):
                time.sleep(0.02)
                yield piece[place : place + 1]

    return answer


SLOW = {
    "head": slowly(OK + b"x: " + b"y" * 5000),
    "body": slowly(whole(bytes(5000))),
    "informational": slowly(head("100 Continue") + b"\r\n", b"H" * 9000),
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
def test_an_answer_that_comes_byte_by_byte_is_cut_off(call, monkeypatch, answer):
    monkeypatch.setattr(common.channel, "_WHOLE_CALL", 1)
    started = time.monotonic()
    _, error = call(answer, timeout_seconds=0.5)
    assert isinstance(error, TransportError)
    assert time.monotonic() - started < 3


def test_after_one_that_was_cut_off_the_next_call_connects_again(tmp_path, monkeypatch):
    monkeypatch.setattr(common.channel, "_WHOLE_CALL", 1)
    answers = [lambda _: whole(GOOD), SLOW["body"]]

    def answer(asked):
        return answers.pop()(asked)

    with evil_server(tmp_path, answer) as server:
        channel = Channel(server.address, server.authority, "SuperNode", proxy="", timeout_seconds=0.5)
        assert isinstance(ask(channel), TransportError)
        assert ask(channel).node_id == 7
        channel.close()


def test_silence_ends_with_the_wait(call):
    def silent(_):
        time.sleep(1.0)
        yield b""

    started = time.monotonic()
    _, error = call(silent, timeout_seconds=0.2)
    assert error.message.endswith("cannot be reached: there was no answer in time")
    assert time.monotonic() - started < 0.9


def test_a_channel_that_is_closed_meanwhile_is_an_error_like_any_other(call):
    channel = Channel("127.0.0.1:9", call(whole(GOOD))[0].authority, "SuperNode", proxy="")
    channel.close()
    assert isinstance(ask(channel), TransportError)


# --- who is there ----------------------------------------------------------------------------------------------------


def test_another_authority_is_an_access_error_and_nothing_was_said(tmp_path, call):
    trusted = call(whole(GOOD))[0].authority
    with evil_server(tmp_path, lambda _: whole(GOOD), name="other") as server:
        channel = Channel(server.address, trusted, "SuperNode", proxy="")
        error = ask(channel)
        channel.close()
    assert isinstance(error, AccessError)
    assert error.message == f"{server.address} shows a certificate that the pinned authority did not sign"
    assert "compare fingerprints" in error.hint
    assert not server.asked


@pytest.mark.parametrize(
    ("made", "rule", "hint"),
    [
        ({"age_days": 2}, "has expired, by this machine's clock", "cloister-coordinator renew"),
        ({"age_days": -1}, "is not valid yet, by this machine's clock", "set this machine's clock"),
        ({"address": "127.0.0.2"}, "is for another address", "a new invitation"),
    ],
)
@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_certificate_of_another_time_or_address_is_not_of_another_authority(tmp_path, made, rule, hint, is_pinned):
    make_certificates(tmp_path, **made)
    pinned = tmp_path / "ca.pem" if is_pinned else make_certificates(tmp_path, "pinned")[0]
    with evil_server(tmp_path, lambda _: whole(GOOD)) as server:
        channel = Channel(server.address, pinned.read_text(), "SuperNode", proxy="")
        error = ask(channel)
        channel.close()
    assert isinstance(error, AccessError)
    expected = (rule, hint) if is_pinned else ("the pinned authority did not sign", "compare fingerprints")
    assert error.message == f"{server.address} shows a certificate that {expected[0]}"
    assert expected[1] in error.hint
    assert not server.asked


@pytest.mark.parametrize("authority", ["", "x", "é", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_authority_that_is_none_is_one_sentence(authority):
    with pytest.raises(TransportError, match="not a PEM certificate"):
        Channel("127.0.0.1:9", authority, "SuperNode")


def test_nobody_there_is_one_sentence(call):
    channel = Channel("127.0.0.1:9", call(whole(GOOD))[0].authority, "SuperNode", proxy="")
    error = ask(channel)
    channel.close()
    assert (type(error), error.message) == (
        TransportError,
        "127.0.0.1:9 cannot be reached: the connection was refused",
    )


# --- proxies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_the_environments_proxy_is_used_and_its_exceptions_are_kept(call, environment):
    with proxy() as between:
        environment.setenv("HTTPS_PROXY", f"http://{between.address}")
        server, answer = call(whole(GOOD), proxy=None)
        assert (answer.node_id, between.paths) == (7, [server.address])
        environment.setenv("NO_PROXY", "127.0.0.1")
        assert call(whole(GOOD), proxy=None)[1].node_id == 7
        assert len(between.asked) == 1


def test_a_named_proxy_wins_over_the_environment_and_an_empty_one_means_none(call, environment):
    environment.setenv("HTTPS_PROXY", "http:" + "//127.0.0.1:9")
    with proxy() as between:
        server, answer = call(whole(GOOD), proxy=between.address)
        assert (answer.node_id, between.paths) == (7, [server.address])
        assert call(whole(GOOD), proxy="")[1].node_id == 7
        assert len(between.asked) == 1


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "NO_PROXY"])
@pytest.mark.parametrize("value", ["::::", "http:" + "//[::1"])
def test_an_environment_that_cannot_be_used_is_one_sentence(call, environment, name, value):
    environment.setenv(name, value)
    with pytest.raises(ConfigError, match="cannot be used"):
        call(whole(GOOD), proxy=None)


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1"])
def test_a_proxy_that_is_no_http_proxy_is_one_sentence(call, environment, value):
    environment.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigError, match="cannot be used"):
        call(whole(GOOD), proxy=None)
