"""What passes the gateway is a list; everything else is refused by its head alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.envelope import SHORT_ENVELOPE_BYTES
from server.gateway.rules import FLEET_PATHS, FORWARDED_HEADERS, Head, Refusal, body_limit, judge

LIMIT = 1000
TYPE = (b"content-type", b"application/protobuf")
LENGTH = (b"content-length", b"10")


def scope(path="/v1/fleet/get-run", headers=(TYPE, LENGTH), **changed):
    values = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "headers": list(headers),
    }
    return {**values, **changed}


@pytest.mark.parametrize("path", FLEET_PATHS)
def test_each_call_of_a_node_passes(path):
    assert judge(scope(path), LIMIT) == Head(path, 10, ())


def test_a_node_neither_registers_itself_nor_asks_for_code():
    assert not {path.rsplit("/", 1)[1] for path in FLEET_PATHS} & {"register-node", "unregister-node", "get-fab"}
    assert all(path.startswith("/v1/fleet/") for path in FLEET_PATHS)


def test_a_chunked_body_passes_without_a_length():
    assert judge(scope(headers=(TYPE, (b"transfer-encoding", b"chunked"))), LIMIT) == Head(
        "/v1/fleet/get-run", None, ()
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "post", ""])
def test_other_methods_do_not_pass(method):
    assert judge(scope(method=method), LIMIT) == Refusal(404)


# One fault each: the server's own decoding of the path is right in all of them, the raw bytes are not.
@pytest.mark.parametrize(
    "raw",
    [
        b"/v1/fleet/get%2drun",
        b"/v1/fleet/%67et-run",
        b"//v1/fleet/get-run",
        b"/v1//fleet/get-run",
        b"/v1/fleet/get-run/",
        b"/v1/fleet/./get-run",
        b"/v1/control/../fleet/get-run",
        b"/v1/fleet/get-run;x",
        b"/v1/fleet/get-run#x",
        b"/v1/fleet/get-run%00",
        b"/v1/fleet/GET-RUN",
        b"http://" + b"gateway/v1/fleet/get-run",
        b"*",
        b"",
    ],
)
def test_only_the_exact_bytes_of_a_path_pass(raw):
    assert judge(scope(raw_path=raw), LIMIT) == Refusal(404)


def test_the_decoded_path_and_the_query_must_fit_too():
    assert judge(scope(path="/v1/control/start-run", raw_path=b"/v1/fleet/get-run"), LIMIT) == Refusal(404)
    assert judge(scope(query_string=b"x=1"), LIMIT) == Refusal(404)
    assert judge({**scope(), "raw_path": None}, LIMIT) == Refusal(404)


@pytest.mark.parametrize(
    "headers",
    [
        (TYPE,),
        (LENGTH,),
        (TYPE, LENGTH, (b"transfer-encoding", b"chunked")),
        (TYPE, (b"transfer-encoding", b"gzip, chunked")),
        (TYPE, (b"transfer-encoding", b"identity")),
        (TYPE, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")),
        (TYPE, LENGTH, LENGTH),
        (TYPE, (b"content-length", b"+10")),
        (TYPE, (b"content-length", b"1_0")),
        (TYPE, (b"content-length", b" 10")),
        (TYPE, (b"content-length", b"\xd9\xa1")),
        (TYPE, (b"content-length", b"9" * 13)),
        (TYPE, TYPE, LENGTH),
        ((b"content-type", b"application/protobuf; x=y"), LENGTH),
        ((b"content-type", b"application/json"), LENGTH),
        (TYPE, LENGTH, (b"upgrade", b"websocket")),
        (TYPE, LENGTH, (b"connection", b"upgrade")),
        (TYPE, LENGTH, (b"connection", b"keep-alive, flwr-signature")),
        (TYPE, LENGTH, (b"http2-settings", b"x")),
        (TYPE, LENGTH, (b"expect", b"100-continue")),
        (TYPE, LENGTH, (b"trailer", b"flwr-signature")),
        (TYPE, LENGTH, (b"content-encoding", b"gzip")),
        (TYPE, LENGTH, (b"flwr-signature", b"a"), (b"flwr-signature", b"b")),
        (TYPE, LENGTH, (b"flwr-signature", b"a\r\nx: y")),
        (TYPE, LENGTH, (b"flwr-signature", b"")),
        (TYPE, LENGTH, (b"flwr-signature", b"a" * 1025)),
        (TYPE, LENGTH, *((b"x-%d" % number, b"") for number in range(31))),
    ],
)
def test_an_odd_head_is_refused(headers):
    assert judge(scope(headers=headers), LIMIT) == Refusal(400)


def test_old_and_new_protocols_are_refused():
    assert judge(scope(http_version="1.0"), LIMIT) == Refusal(400)
    assert judge(scope(http_version="2"), LIMIT) == Refusal(400)


def test_a_declared_body_may_be_as_long_as_the_limit_and_no_longer():
    assert judge(scope(headers=(TYPE, (b"content-length", b"1000"))), LIMIT) == Head("/v1/fleet/get-run", 1000, ())
    assert judge(scope(headers=(TYPE, (b"content-length", b"1001"))), LIMIT) == Refusal(413)


@pytest.mark.parametrize("path", FLEET_PATHS)
def test_what_is_no_upload_ends_at_a_short_envelope_with_its_head(path):
    limit = 32 << 20
    longest = limit if path.endswith("push-object") else SHORT_ENVELOPE_BYTES + (1 << 16)
    assert body_limit(path, limit) == longest
    for length, verdict in ((longest, Head(path, longest, ())), (longest + 1, Refusal(413))):
        assert judge(scope(path, headers=(TYPE, (b"content-length", b"%d" % length))), limit) == verdict


def test_only_what_flower_reads_is_forwarded():
    wanted = [(name, b"Value+1/=: .-_") for name in sorted(FORWARDED_HEADERS)]
    others = [(b"cookie", b"a"), (b"authorization", b"b"), (b"x-forwarded-for", b"c"), (b"host", b"d"), (b"te", b"e")]
    verdict = judge(scope(headers=[TYPE, *others, *wanted, LENGTH]), LIMIT)
    assert isinstance(verdict, Head)
    assert list(verdict.forwarded) == wanted


@settings(max_examples=200)
@given(
    raw=st.one_of(st.binary(max_size=40), st.sampled_from([path.encode() for path in FLEET_PATHS])),
    mutation=st.tuples(st.integers(0, 40), st.binary(max_size=3)),
)
def test_no_other_bytes_than_a_listed_path_pass(raw, mutation):
    place, piece = mutation
    changed = raw[:place] + piece + raw[place:]
    verdict = judge(scope(raw_path=changed), LIMIT)
    # The oracle: a scope of get-run passes with its own bytes and with no others.
    assert isinstance(verdict, Head) == (changed == b"/v1/fleet/get-run")
