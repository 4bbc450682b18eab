"""How much one address, and all together, may ask of the gateway."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from common.config import StrictConfig

UNKNOWN_ADDRESS = "unknown"


class GatewayLimits(StrictConfig):
    """The bounds within which the gateway serves; the defaults fit tens of sites, also behind one address."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    body_limit_bytes: int = Field(default=32 * 2**20, ge=1024, le=2**30)
    """The longest upload; what is no upload ends at a little over 2 MiB, or here."""
    requests_per_second: float = Field(default=200.0, gt=0)
    """Requests and connections an address may make in the long run."""
    burst: int = Field(default=400, ge=1)
    """And how many at once, after a pause."""
    connections: int = Field(default=256, ge=1, le=10_000)
    """Connections open at once."""
    connections_per_address: int = Field(default=64, ge=1)
    """Of them, of enrolled nodes at one address; hospitals behind one address share them."""
    connections_per_node: int = Field(default=16, ge=1)
    """And of one node; it needs two or three."""
    strangers: int = Field(default=64, ge=1)
    """Of all connections, those that have not shown an enrolled node's key yet; the first makes way for the next."""
    strangers_per_address: int = Field(default=16, ge=1)
    """And from one address."""
    handshake_seconds: float = Field(default=10.0, gt=0)
    """For TLS to be agreed."""
    head_seconds: float = Field(default=10.0, gt=0)
    """For the head of a request to arrive, from the connection or from its first byte."""
    idle_seconds: float = Field(default=20.0, gt=0)
    """Between two pieces of a body, either way."""
    body_grace_seconds: float = Field(default=10.0, gt=0)
    """So long a body may be as slow as it likes."""
    least_bytes_per_second: float = Field(default=8192.0, gt=0)
    """And so fast it must be from then on, on average."""
    request_seconds: float = Field(default=300.0, gt=0)
    """For a whole request with its answer: 32 MiB at 1 Mbit/s take 270 s."""
    keep_alive_seconds: int = Field(default=15, ge=1)
    """How long a connection may rest between requests; longer than Flower's client keeps one (5 s)."""
    upstream_connect_seconds: float = Field(default=2.0, gt=0)
    """For the SuperLink to accept a connection."""
    upstream_answer_seconds: float = Field(default=30.0, gt=0)
    """For the SuperLink to begin to answer."""
    access_window_seconds: float = Field(default=900.0, gt=0)
    """Like requests within this time share one access line."""
    access_lines: int = Field(default=512, ge=1)
    """Access lines of one window; what is beyond them is counted in one more."""

    @model_validator(mode="after")
    def _nodes_have_places(self) -> Self:
        if self.strangers >= self.connections:
            raise ValueError("`strangers` must be fewer than `connections`")
        return self


def address_group(host: str) -> str:
    """Name whom an address is counted with: itself in IPv4, its /64 network in IPv6, where each host has a /64.

    Edge cases:
        An IPv4 address written in IPv6 is the IPv4 one. What is no address is `unknown`, one group for all of it.

    >>> address_group("192.0.2.7"), address_group("::ffff:192.0.2.7"), address_group("2001:db8::5:1")
    ('192.0.2.7', '192.0.2.7', '2001:db8::/64')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN_ADDRESS
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class TokenBuckets:
    """A token bucket for each address, in a table that does not grow beyond its size.

    Guarantees:
        Within t seconds an address takes at most `burst` + `rate` · t tokens, as long as it is in the table.

    Edge cases:
        When the table is full, the address unused for longest is forgotten: to gain a full bucket by that, an attacker
        needs more addresses than the table has places, and then has that many buckets anyway.

    Args:
        rate: Tokens a second.
        burst: Tokens in a full bucket.
        size: Addresses remembered.
        clock: Seconds that never go back.
    """

    def __init__(self, rate: float, burst: int, size: int = 4096, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._size, self._clock = rate, float(burst), size, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str) -> bool:
        """Take one token, or say that there is none."""
        now = self._clock()
        tokens, since = self._buckets.pop(address, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        granted = tokens >= 1
        self._buckets[address] = (tokens - 1 if granted else tokens, now)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        return granted
