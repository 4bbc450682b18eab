"""Rates are bounded, and so is what is kept to count them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import parse_config
from common.errors import ConfigError
from server.gateway.limits import UNKNOWN_ADDRESS, GatewayLimits, TokenBuckets, address_group


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_burst_then_the_rate():
    clock = Clock()
    buckets = TokenBuckets(2.0, 3, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    clock.seconds = 0.5
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    clock.seconds = 100.0
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


def test_addresses_do_not_share_a_bucket():
    buckets = TokenBuckets(1.0, 1, clock=Clock())
    assert buckets.take("a")
    assert buckets.take("b")
    assert not buckets.take("a")


def test_asking_in_vain_does_not_push_the_next_token_away():
    clock = Clock()
    buckets = TokenBuckets(1.0, 1, clock=clock)
    buckets.take("a")
    for tick in range(1, 10):
        clock.seconds = tick / 10
        assert not buckets.take("a")
    clock.seconds = 1.0 + 1e-9
    assert buckets.take("a")


@settings(max_examples=50)
@given(st.lists(st.floats(0.0, 2.0), max_size=60))
def test_never_more_than_burst_and_rate_allow(pauses):
    clock, granted = Clock(), []
    buckets = TokenBuckets(2.0, 3, clock=clock)
    for pause in pauses:
        clock.seconds += pause
        if buckets.take("a"):
            granted.append(clock.seconds)
    # The oracle counts windows instead of tokens: between any two grants, no more than burst + rate · time.
    for first, start in enumerate(granted):
        for last in range(first, len(granted)):
            assert last - first + 1 <= 3 + 2.0 * (granted[last] - start) + 1e-6


def test_the_table_of_addresses_does_not_grow_beyond_its_size():
    buckets = TokenBuckets(1.0, 1, size=10, clock=Clock())
    for number in range(1000):
        buckets.take(str(number))
    assert len(buckets) == 10
    assert not buckets.take("999")  # the newest is remembered, and is out of tokens


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", UNKNOWN_ADDRESS),
        ("attacker\nline", UNKNOWN_ADDRESS),
    ],
)
def test_who_is_counted_together(host, group):
    assert address_group(host) == group


def test_an_unknown_limit_is_an_error():
    assert parse_config(GatewayLimits, {"burst": 5}, "gateway").burst == 5
    with pytest.raises(ConfigError):
        parse_config(GatewayLimits, {"brust": 5}, "gateway")
