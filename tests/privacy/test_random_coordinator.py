"""A coordinator without a plan: random requests, in any order, to any site; and never more than a sum comes to light.

The lies of `simulations.attacks` are those that somebody thought of. Here nobody thinks: sessions, rosters, cohorts,
models, survivors and consents are drawn at random from all that was ever seen, by a coordinator with one colluder.
"""

from collections import defaultdict

import numpy as np
import pytest

from client.charges import Charges
from client.secagg import SiteHalf
from common.secagg.messages import SessionRoster
from simulations.attacks import hospitals
from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.hospitals import HONEST, NAMES, Study

STEPS = 100
SEEDS = range(20)
SESSIONS = ("5e" * 32, "a5" * 32)


@pytest.fixture(autouse=True)
def long_run(monkeypatch):
    """A plan of many rounds: one that is lost is lost."""
    monkeypatch.setattr(hospitals, "ROUNDS", 30)


class RandomCoordinator:
    """Draws each request; what it has seen it may use again at any time."""

    def __init__(self, folder, seed):
        self.server, self.draw = HostileCoordinator(Study(folder)), np.random.default_rng(seed)
        self.parts, self.sessions, self.orders = defaultdict(dict), [], []
        self.consents, self.last = defaultdict(dict), 0

    def step(self):
        action = self.draw.choice(["invite", "show", "order", "mix", "open"], p=[0.04, 0.06, 0.1, 0.2, 0.6])
        getattr(self, action)()

    def one(self, things):
        """Mostly a late one: most of what is old is refused anyway."""
        place = int(self.draw.integers(len(things))) if self.draw.random() < 0.3 else len(things) - 1
        return things[place]

    def some(self, names, least=1):
        """Mostly all of them."""
        names = sorted(names)
        count = len(names) if self.draw.random() < 0.6 else self.draw.integers(min(least, len(names)), len(names) + 1)
        return tuple(sorted(self.draw.choice(names, count, replace=False).tolist()))

    def invite(self):
        session, first = str(self.draw.choice(SESSIONS)), max(1, self.last + int(self.draw.integers(2)))
        names = {*self.some(NAMES, least=2), "west"}
        self.parts[session, first] |= self.server.invite(session, first, sorted(names), rounds=10)

    def show(self):
        pool = self.one(list(self.parts.values()))
        if "west" in pool:
            roster = SessionRoster.of(pool[name] for name in {*self.some(pool, least=3), "west"})
            self.sessions.append(self.server.show(roster))

    def order(self):
        if self.sessions:
            session = self.one(self.sessions)
            cohort = self.some(session.cohort, least=3)
            self.send(session, self.number(session), cohort, self.some(HONEST))

    def number(self, session):
        """Mostly the next round: a site answers no past one."""
        at_random = int(self.draw.choice(list(session.rounds)))
        self.last = at_random if self.draw.random() < 0.1 else self.last + 1
        return self.last

    def send(self, session, number, cohort, names):
        """An order of a model that is drawn, to these."""
        order = self.server.order(session, number, cohort, float(self.draw.integers(2)))
        self.orders.append((session, order))
        self.server.collect(session, order, names)

    def mix(self):
        """A round in two contexts: one hospital is told another cohort and model than the rest, who are to open it."""
        if self.sessions:
            session = self.one(self.sessions)
            number, victim = self.number(session), str(self.draw.choice(HONEST))
            self.send(session, number, self.but_one(session.cohort), [victim])
            self.send(session, number, session.cohort, [name for name in HONEST if name != victim])
            self.open_sum(*self.orders[-1], self.but_one(session.cohort))

    def but_one(self, names):
        missing = self.draw.choice(HONEST)
        return tuple(name for name in names if name != missing)

    def open(self):
        if self.orders:
            session, order = self.one(self.orders)
            least_two, but_one = self.some(order.cohort, least=2), self.but_one(order.cohort)
            self.open_sum(session, order, least_two if self.draw.random() < 0.5 else but_one)

    def open_sum(self, session, order, survivors):
        known = self.consents[session.digest, order.cohort, order.round_number, order.weights.tobytes(), survivors]
        known |= self.server.consents(session, order, survivors, (*self.some(HONEST), "west"))
        if len(set(order.cohort)) > 1:
            holders = [name for name in self.some(HONEST) if name in session.dealt]
            self.server.reveals(session, order, survivors, dict(sorted(known.items())), holders)


def openings(folder, seed):
    folder.mkdir()
    coordinator = RandomCoordinator(folder, seed)
    coordinator.invite()
    coordinator.show()
    for _ in range(STEPS):
        coordinator.step()
    return coordinator.server.view.openings()


def is_safe(found):
    """At most one sum a round, each of at least n - d - c = 2 honest sites."""
    rounds = [opening.round_number for opening in found]
    sums = all(len(opening.weights) >= 2 and {weight for _, weight in opening.weights} == {1} for opening in found)
    return sums and len(rounds) == len(set(rounds))


def test_nothing_but_one_sum_a_round_comes_to_light(tmp_path):
    found = [openings(tmp_path / str(seed), seed) for seed in SEEDS]
    assert all(map(is_safe, found))
    assert sum(map(len, found)) >= len(SEEDS) // 2, "most runs should open something, or they show nothing"


@pytest.mark.parametrize(
    ("part", "check", "without"),
    [
        (Charges, "survivors_fault", lambda *_: None),
        (SiteHalf, "_check_enough", lambda *_: None),
        (SiteHalf, "_check_replies", lambda *_: None),
    ],
    ids=["any number of survivor sets", "no threshold", "replies for any context"],
)
def test_planted_fault_is_found_by_chance(tmp_path, monkeypatch, part, check, without):
    monkeypatch.setattr(part, check, without)
    assert not all(is_safe(openings(tmp_path / str(seed), seed)) for seed in SEEDS)
