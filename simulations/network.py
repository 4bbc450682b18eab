"""A simulated network that loses, delays, repeats and alters messages, the same way each time it is run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, get_args

from pydantic import Field

from common.config import StrictConfig
from common.errors import TransportError
from common.randomness import public_generator

Probability = Annotated[float, Field(ge=0, le=1)]
Fault = Literal["drop order", "repeat order", "alter order", "drop reply", "delay reply", "repeat reply", "alter reply"]


class Faults(StrictConfig):
    """How bad the network is: probabilities for each message, independent of each other."""

    drop: Probability = Field(0.0, description="an order, and likewise a reply, is lost")
    delay: Probability = Field(0.0, description="a reply comes only during the next exchange, when it is stale")
    repeat: Probability = Field(0.0, description="an order, and likewise a reply, is delivered twice")
    alter: Probability = Field(0.0, description="one byte of an order, and likewise of a reply, is changed on the way")


@dataclass(frozen=True)
class Traffic:
    """What the network has carried: bytes and messages that each side handed to it, and the faults it made."""

    orders: int
    replies: int
    order_bytes: int
    reply_bytes: int
    faults: Mapping[Fault, int]


@dataclass(frozen=True, repr=False)
class Delivery:
    """One copy of an order on its way to a site: as the coordinator sent it, and as the site gets it."""

    site: str
    sent: bytes
    copy: int
    delivered: bytes


class Carrier(Protocol):
    """What brings deliveries to the sites, wherever they live, and their answers back; it makes no faults."""

    @property
    def sites(self) -> Collection[str]:
        """Names of the sites that it reaches."""
        ...

    def carry(self, deliveries: Iterable[Delivery]) -> Iterator[tuple[Delivery, bytes]]:
        """Bring each delivery once, and yield it with its answer.

        A site gets its deliveries in order, each after it answered the one before; between sites any order will do.
        """
        ...


class OneByOne:
    """A carrier to sites in this process: each is asked when its answer is waited for.

    Args:
        nodes: Site name to what answers an order there.
    """

    def __init__(self, nodes: Mapping[str, Callable[[bytes], bytes]]) -> None:
        self._nodes = dict(nodes)

    @property
    def sites(self) -> Collection[str]:
        """Names of the sites."""
        return self._nodes.keys()

    def carry(self, deliveries: Iterable[Delivery]) -> Iterator[tuple[Delivery, bytes]]:
        """As `Carrier.carry`, in the order given."""
        for delivery in deliveries:
            yield delivery, self._nodes[delivery.site](delivery.delivered)


class SimulatedNetwork:
    """A `Transport` to virtual sites, over a carrier that knows where they live.

    Guarantees:
        Whether a message meets a fault depends on the public seed, the order's bytes, the site and the kind of fault,
        and on nothing kept in memory. A run that is resumed meets the same faults as one that was never stopped, but
        for replies that were under way when it stopped: those are lost.

    Edge cases:
        The same order sent again meets the same fate again, so sending it once more does not help on this network.
        Replies that are late in the last exchange never come.

    Args:
        carrier: What reaches the sites.
        faults: How bad the network is.
        seed: Public seed.
    """

    def __init__(self, carrier: Carrier, faults: Faults, seed: int) -> None:
        self._carrier = carrier
        self._faults = faults
        self._seed = seed
        self._late: list[tuple[str, bytes]] = []
        self._counts: Counter[str] = Counter()
        self._fault_counts: Counter[Fault] = Counter()

    @property
    def traffic(self) -> Traffic:
        """A snapshot of the counts since the network was made."""
        sums = {name: self._counts[name] for name in ("orders", "replies", "order_bytes", "reply_bytes")}
        return Traffic(**sums, faults={fault: self._fault_counts[fault] for fault in get_args(Fault)})

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`; late replies of the exchange before come first.

        Raises:
            TransportError: When a name is not on this network; nothing was sent then.
        """
        unknown = sorted(orders.keys() - set(self._carrier.sites))
        if unknown:
            raise TransportError(f"site {unknown[0]} is not on this network", hint="check the names of the sites")
        late, self._late = self._late, []
        yield from late
        for delivery, reply in self._carrier.carry(self._deliveries(orders)):
            self._count("reply", reply)
            yield from self._bring_back(delivery, reply)

    def _deliveries(self, orders: Mapping[str, bytes]) -> Iterator[Delivery]:
        for site, order in orders.items():
            fate = self._fate(site, order, "order")
            self._count("order", order)
            if fate.meets("drop order", self._faults.drop):
                continue
            delivered = fate.altered(order, "alter order", self._faults.alter)
            copies = 2 if fate.meets("repeat order", self._faults.repeat) else 1
            for copy in range(copies):
                yield Delivery(site, order, copy, delivered)

    def _bring_back(self, delivery: Delivery, reply: bytes) -> Iterator[tuple[str, bytes]]:
        site, fate = delivery.site, self._fate(delivery.site, delivery.sent, f"reply {delivery.copy}")
        if fate.meets("drop reply", self._faults.drop):
            return
        delivered = fate.altered(reply, "alter reply", self._faults.alter)
        if fate.meets("delay reply", self._faults.delay):
            self._late.append((site, delivered))
            return
        copies = 2 if fate.meets("repeat reply", self._faults.repeat) else 1
        for _ in range(copies):
            yield site, delivered

    def _fate(self, site: str, order: bytes, message: str) -> _Fate:
        labels = ("network", site, hashlib.sha256(order).hexdigest(), message)
        return _Fate(self._seed, labels, self._fault_counts)

    def _count(self, side: Literal["order", "reply"], message: bytes) -> None:
        self._counts["orders" if side == "order" else "replies"] += 1
        self._counts[f"{side}_bytes"] += len(message)


@dataclass(frozen=True)
class _Fate:
    """The faults that one message meets, drawn from the labels that name it."""

    seed: int
    labels: tuple[str, ...]
    counts: Counter[Fault]

    def meets(self, fault: Fault, probability: float) -> bool:
        # The draw is below 1 and never below 0, so that probability 1 always happens and 0 never does.
        happens = bool(public_generator(self.seed, *self.labels, fault).random() < probability)
        self.counts[fault] += happens
        return happens

    def altered(self, message: bytes, fault: Fault, probability: float) -> bytes:
        if not message or not self.meets(fault, probability):
            return message
        where = public_generator(self.seed, *self.labels, fault, "where")
        changed = bytearray(message)
        changed[int(where.integers(len(message)))] ^= int(where.integers(1, 256))
        return bytes(changed)
