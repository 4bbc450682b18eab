"""Real sites and a real coordinator of secure aggregation in one process, on a stopwatch.

Nothing is left out but training and the network: frames are written, read and checked, books are on disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.charges import Charges
from client.node import SiteNode
from client.secagg import SiteHalf
from client.session import SessionBook
from client.training.skellam import skellam
from common.errors import SecureAggregationError
from common.identity import new_identity, public_name
from common.messages import Order
from common.plan import BaseIdentity, OptimizerConfig, Plan, PrivacyTerms, SecureAggregationConfig, TaskConfig
from common.privacy.mechanism import mechanism_of
from common.randomness import RandomSource, SecretSource
from common.secagg.messages import MaskedOrder, RevealRequest, SurvivorSet
from common.wire import decode
from server.gather import Gathered
from server.masked_round import MaskedGatherer
from server.replies import Exchanges
from server.secagg import Session
from server.session_file import save_session
from server.session_setup import open_session

SESSION = "5e" * 32
NOBODY: Collection[str] = ()


def bench_plan(identities: Mapping[str, Ed25519PrivateKey]) -> Plan:
    """A plan of mode distributed in which 10 % of the sites may be missing and 5 % collude, both rounded up."""
    sites = len(identities)
    return Plan(
        name="bench",
        rounds=64,
        sites=sites,
        roster={name: public_name(identity) for name, identity in identities.items()},
        base=BaseIdentity(name="none", files={"none": "0" * 64}),
        task=TaskConfig(kind="text-classification", labels=("none", "event"), positive_label="event"),
        optimizer=OptimizerConfig(rule="sgd", learning_rate=0.1),
        privacy=PrivacyTerms(unit="patient", sampling_rate=0.05, divisor=64.0, noise_multiplier=1.0),
        secure_aggregation=SecureAggregationConfig(
            tolerated_dropouts=math.ceil(0.1 * sites), tolerated_colluders=math.ceil(0.05 * sites)
        ),
    )


class NoiseTrainer:
    """A hospital whose clipped sum is zero: what it sends is its share of the noise, or nothing but zeros.

    Attributes:
        seconds: What each draw took.
    """

    def __init__(self, variance: float, source: RandomSource) -> None:
        self._variance = variance
        self._source = source
        self.seconds: list[float] = []

    def train(self, order: Order) -> npt.NDArray[np.int64]:
        """The share, `[d]`."""
        start = time.perf_counter()
        share = skellam(self._variance, len(order.weights), self._source)
        self.seconds.append(time.perf_counter() - start)
        return share


@dataclass
class Exchange:
    """One exchange: when it began, what was sent, and the seconds and the bytes that came back of each site."""

    began: float
    orders: Mapping[str, bytes] = field(repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)


class Stopwatch:
    """A transport that calls the sites one after the other and times each of them.

    Args:
        nodes: The sites by name.
    """

    def __init__(self, nodes: Mapping[str, SiteNode]) -> None:
        self._nodes = nodes
        self._lost: Collection[str] = ()
        self.exchanges: list[Exchange] = []

    def start(self, lost: Collection[str] = NOBODY) -> None:
        """Forget what was measured; answers of `lost` to the next exchange do not arrive."""
        self._lost = lost
        self.exchanges = []

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`."""
        current = Exchange(time.perf_counter(), orders)
        lost, self._lost = self._lost, ()
        self.exchanges.append(current)
        for site, order in orders.items():
            start = time.perf_counter()
            answer = self._nodes[site].answer(order)
            current.seconds[site] = time.perf_counter() - start
            current.bytes_up[site] = len(answer)
            if site not in lost:
                yield site, answer


@dataclass(frozen=True)
class Timed:
    """What one set-up or round took.

    Attributes:
        exchanges: In order: keys and shares of a set-up; inputs, consents and reveals of a round.
        parts: Seconds of the coordinator from the beginning of each exchange to that of the next, without the sites';
            what comes before the first counts to the first.
    """

    exchanges: tuple[Exchange, ...]
    parts: tuple[float, ...]

    @classmethod
    def of(cls, start: float, exchanges: list[Exchange], end: float) -> Timed:
        """From clock readings."""
        edges = [start, *(exchange.began for exchange in exchanges[1:]), end]
        parts = [
            after - before - sum(exchange.seconds.values())
            for before, after, exchange in zip(edges[:-1], edges[1:], exchanges, strict=True)
        ]
        return cls(tuple(exchanges), tuple(parts))

    @property
    def coordinator_seconds(self) -> float:
        """All of it but the sites' time."""
        return sum(self.parts)

    def site_seconds(self, site: str) -> float:
        """One site's time over all exchanges."""
        return sum(exchange.seconds[site] for exchange in self.exchanges)

    def bytes_up(self, site: str) -> int:
        """What one site sent."""
        return sum(exchange.bytes_up[site] for exchange in self.exchanges)

    def bytes_down(self, site: str) -> int:
        """What one site was sent."""
        return sum(len(exchange.orders[site]) for exchange in self.exchanges)


class BenchFederation:
    """So many sites and their coordinator.

    Args:
        count: n.
        dimension: d, trainable values.
        folder: An existing, empty folder for the books.
        noisy: The first so many sites draw their noise; the others send zeros, to save time.
    """

    def __init__(self, count: int, dimension: int, folder: Path, noisy: int) -> None:
        identities = {f"site-{number:03}": new_identity() for number in range(count)}
        self.plan = bench_plan(identities)
        self.dimension = dimension
        self.variance = mechanism_of(self.plan).share_variance
        self.names = tuple(identities)
        self.noisy = self.names[:noisy]
        self.halves: dict[str, SiteHalf] = {}
        self.trainers: dict[str, NoiseTrainer] = {}
        nodes = {name: self._join(name, identity, dimension, folder) for name, identity in identities.items()}
        self._weights = np.zeros(dimension, dtype=np.float32)
        self._folder = folder
        self._watch = Stopwatch(nodes)
        self._gatherer = MaskedGatherer(self.plan, self.names, self._watch, folder)

    def _join(self, name: str, identity: Ed25519PrivateKey, dimension: int, folder: Path) -> SiteNode:
        own = folder / name
        own.mkdir()
        variance = self.variance if name in self.noisy else 0.0
        self.trainers[name] = NoiseTrainer(variance, SecretSource())
        book = SessionBook(own, self.plan.digest, name)
        self.halves[name] = SiteHalf(name, self.plan, identity, book)
        charges = Charges(own, self.plan, name)
        return SiteNode(self.plan, self.trainers[name], charges, self.halves[name], dimension=dimension)

    def set_up(self) -> Timed:
        """Steps 1 to 4 for a whole session from round 1 on, which the rounds then use.

        Raises:
            SecureAggregationError: When a site is missing from it.
        """
        self._watch.start()
        start = time.perf_counter()
        session = open_session(self.plan, self.names, SESSION, 1, Exchanges(self._watch, self.plan.digest, 1))
        end = time.perf_counter()
        self._keep(session)
        return Timed.of(start, self._watch.exchanges, end)

    def _keep(self, session: Session | None) -> None:
        if session is None or session.cohort != self.names:
            raise SecureAggregationError("a site of the bench did not finish the set-up")
        save_session(self._folder, session)
        self._gatherer = MaskedGatherer(self.plan, self.names, self._watch, self._folder)

    def round(self, number: int, lost: Collection[str] = NOBODY) -> tuple[Timed, Gathered]:
        """Steps 5 to 11 of one round, in which the masked numbers of some sites do not arrive.

        Raises:
            SecureAggregationError: When no sum came out.
        """
        self._watch.start(lost)
        start = time.perf_counter()
        gathered = self._gatherer.gather(number, self._weights, self._weights[:0])
        end = time.perf_counter()
        if gathered.abort or gathered.survivors != len(self.names) - len(lost):
            raise SecureAggregationError(f"round {number} of the bench gave no sum: {gathered.abort}")
        return Timed.of(start, self._watch.exchanges, end), gathered

    def bare_seconds(self, site: str, timed: Timed, values: npt.NDArray[np.int64]) -> tuple[float, float]:
        """What a site's half takes for the answers of a round that was played: masking alone, consent and reveal.

        Neither frames nor books are in it; the answers are the same again and go nowhere.
        """
        requests = [exchange.orders[site] for exchange in timed.exchanges]
        order = decode(requests[0], MaskedOrder)
        survivors, reveal = decode(requests[1], SurvivorSet), decode(requests[2], RevealRequest)
        half = self.halves[site]
        terms = half.terms(order)
        edges = [time.perf_counter()]
        half.mask(order, terms, values)
        edges.append(time.perf_counter())
        half.consent(survivors, terms)
        half.reveal(reveal, terms)
        edges.append(time.perf_counter())
        return edges[1] - edges[0], edges[2] - edges[1]
