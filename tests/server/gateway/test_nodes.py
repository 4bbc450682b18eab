"""Only what an enrolled node has signed just now is a node's."""

import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    MAX_TIMESTAMP_DIFF_SECONDS,
    MIN_TIMESTAMP_DIFF_SECONDS,
)

from server.gateway.nodes import LEAST_AGE_SECONDS, MOST_AGE_SECONDS, calling_node
from server.gateway.rules import FORWARDED_HEADERS, Head
from tests.gateway_play import HEARTBEAT, NODE, node_pem

OTHER = ec.generate_private_key(ec.SECP384R1())
KEYS = {node_pem(NODE)}
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def signed(key=NODE, moment=NOW, stamp=None, **changes):
    stamp = moment.isoformat().encode() if stamp is None else stamp
    values = {
        b"flwr-public-key": b64encode(node_pem(key)),
        b"flwr-signature": b64encode(key.sign(stamp, ec.ECDSA(hashes.SHA256()))),
        b"flwr-timestamp": stamp,
    }
    values |= {b"flwr-" + name.replace("_", "-").encode(): value for name, value in changes.items()}
    return Head(HEARTBEAT, 0, tuple((name, value) for name, value in values.items() if value is not None))


def test_the_tolerance_and_the_headers_are_flowers():
    assert (LEAST_AGE_SECONDS, MOST_AGE_SECONDS) == (MIN_TIMESTAMP_DIFF_SECONDS, MAX_TIMESTAMP_DIFF_SECONDS)
    assert {FLEET_HTTP_PUBLIC_KEY_HEADER.encode(), FLEET_HTTP_SIGNATURE_HEADER.encode()} <= FORWARDED_HEADERS


@pytest.mark.parametrize("spelling", [b"", b"\n", b"\n\n"])
def test_an_enrolled_node_is_known_by_its_key(spelling):
    head = signed(public_key=b64encode(node_pem(NODE) + spelling))
    assert calling_node(head, KEYS, NOW) == node_pem(NODE)


@pytest.mark.parametrize(("age", "known"), [(-5.1, 0), (-4.9, 1), (0, 1), (304.9, 1), (305.1, 0)])
def test_a_signed_time_is_good_for_a_while(age, known):
    assert (calling_node(signed(), KEYS, NOW + timedelta(seconds=age)) is not None) == known


def test_a_time_may_be_told_in_any_zone():
    assert calling_node(signed(moment=NOW.astimezone(timezone(timedelta(hours=9)))), KEYS, NOW)


FAULTS = {
    "another key": signed(OTHER),
    "another's signature": signed(signature=b64encode(OTHER.sign(b"x", ec.ECDSA(hashes.SHA256())))),
    "a signature over another time": signed(timestamp=(NOW + timedelta(seconds=1)).isoformat().encode()),
    "no signature": signed(signature=None),
    "an empty signature": signed(signature=b""),
    "no key": signed(public_key=None),
    "no time": signed(timestamp=None),
    "no base64": signed(public_key=b"%%%"),
    "a time without a zone": signed(stamp=b"2026-11-21T12:00:00"),
    "no time at all": signed(stamp=b"now"),
    "a time beyond ASCII": signed(stamp=b"\xff"),
    "the first of all times": signed(stamp=b"0001-01-01T00:00:00+23:59"),
    "the last of all times": signed(stamp=b"9999-12-31T23:59:59-23:59"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_all_others_are_strangers(fault):
    assert calling_node(FAULTS[fault], KEYS, NOW) is None


def test_a_site_that_was_withdrawn_is_a_stranger_and_a_damaged_key_is_nobodys():
    assert calling_node(signed(), set(), NOW) is None
    for damaged in (b"", b"-----BEGIN PUBLIC KEY-----"):
        assert calling_node(signed(public_key=b64encode(damaged)), {damaged}, NOW) is None


def test_knowing_a_node_takes_little_time():
    head, times = signed(), []
    for _ in range(20):
        started = time.perf_counter()
        assert calling_node(head, KEYS, NOW)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.005
