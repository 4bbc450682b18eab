"""Hospitals with real nodes and books whose training is a formula, so that a sum tells who is in it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from client.charges import Charges
from client.node import SiteNode, Trainer
from client.secagg import SiteHalf
from client.session import SessionBook
from common.identity import new_identity, public_name
from common.messages import Order
from common.plan import Plan
from server.masked_round import MaskedGatherer
from server.run import RunSetup
from server.state import GlobalModel
from tests.plans import make_plan

BASE = 32
"""Each site writes one digit of this base into every coordinate of a sum; five sites stay within 32 bits."""

DIMENSION = 3
GROUPS = {"adapter": slice(0, 2), "head": slice(2, 3)}
NOTHING = np.zeros(0, np.float32)
Door = Callable[[bytes], bytes]


def digit(order: Order) -> list[int]:
    """What a site writes: that it is there, in which round, and something that hangs on every bit of the model."""
    model = 1 + sum(order.weights.tobytes()) % (BASE - 1)
    return [1, order.round_number, model]


class DigitTrainer:
    """Gives `digit` at the site's own place; counts how often each round was trained."""

    def __init__(self, place: int) -> None:
        self.place, self.trained = place, Counter()

    def train(self, order: Order) -> np.ndarray:
        self.trained[order.round_number] += 1
        return np.int64(digit(order)) * BASE**self.place


def present(total: np.ndarray, order: Order, sites: int) -> set[int]:
    """Places of the sites whose vectors are in a total, each once and whole; anything else fails."""
    places = {place for place in range(sites) if (int(total[0]) // BASE**place) % BASE}
    expected = sum((np.int64(digit(order)) * BASE**place for place in places), np.zeros(DIMENSION, np.int64))
    np.testing.assert_array_equal(total, expected)
    return places


@dataclass
class Hospitals:
    """Sites in folders; `open` again is what happens after a kill."""

    plan: Plan
    folder: Path
    identities: dict = field(repr=False)
    trainers: dict[str, Trainer] = field(default_factory=dict)
    dimension: int = DIMENSION

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.identities)

    def book(self, name: str) -> Charges:
        (self.folder / name).mkdir(exist_ok=True)
        return Charges(self.folder / name, self.plan, name)

    def open(self, name: str) -> SiteNode:
        """A node made from what the site has on disk."""
        book = self.book(name)
        session = SessionBook(self.folder / name, self.plan.digest, name)
        half = SiteHalf(name, self.plan, self.identities[name], session)
        return SiteNode(self.plan, self.trainers[name], book, half, dimension=self.dimension)

    def doors(self) -> dict[str, Door]:
        return {name: self.open(name).answer for name in self.names}

    def gatherer(self, transport) -> MaskedGatherer:
        return MaskedGatherer(self.plan, self.names, transport, self.folder)

    def setup(self, transport, **changes) -> RunSetup:
        start = GlobalModel(np.zeros(self.dimension), NOTHING)
        return RunSetup(self.plan, self.names, transport, start, GROUPS, **changes)


@dataclass
class Direct:
    """A transport that loses what `loses` names and nothing else.

    Args:
        doors: What answers at each site.
        loses: Whether the request of a site, which has not seen it yet, is lost.
    """

    doors: Mapping[str, Door]
    loses: Callable[[str, bytes], bool] = lambda site, request: False
    exchanges: int = 0

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self.exchanges += 1
        for site, request in orders.items():
            if not self.loses(site, request):
                yield site, self.doors[site](request)


def make_hospitals(folder: Path, sites: int = 4, dropouts: int = 1, colluders: int = 1, **changes) -> Hospitals:
    """Hospitals s0, s1, … in mode distributed without noise; a step of the grid in a sum moves the model by 2^-16."""
    folder = Path(mkdtemp(dir=folder))
    identities = {f"s{number}": new_identity() for number in range(sites)}
    settings = {
        "mode": "distributed",
        "rounds": 3,
        "local_steps": 1,
        "optimizer": {"learning_rate": 1.0, "momentum": 0.0},
        **changes,
    }
    terms = {"masked": True, "tolerated_dropouts": dropouts, "tolerated_colluders": colluders}
    privacy = {"noise_multiplier": 0.0, "divisor": 1.0, "sampling_rate": 1.0, "unit": "record"}
    plan = make_plan(
        sites=sites,
        roster={name: public_name(identity) for name, identity in identities.items()},
        **settings
        | {
            "secure_aggregation": terms | settings.get("secure_aggregation", {}),
            "privacy": privacy | settings.get("privacy", {}),
        },
    )
    trainers = {name: DigitTrainer(place) for place, name in enumerate(identities)}
    return Hospitals(plan, folder, identities, trainers)


def grid_total(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The total that moved the model of `make_hospitals` from one state to another; the division is exact."""
    steps = (before - after) * 2.0**16
    np.testing.assert_array_equal(steps, np.rint(steps))
    return steps.astype(np.int64)
