"""Real sites and the real coordinator over a network that loses, delays, repeats and alters; training is a formula."""

from collections import Counter

import numpy as np
import pytest

from client.charges import Charges
from client.node import SiteNode
from server.run import RunSetup, run
from server.state import GlobalModel
from simulations.network import Faults, OneByOne, SimulatedNetwork
from tests.plans import make_plan

SITES = ("north", "east", "south", "west")
PLAN = make_plan(rounds=8, sites=4, minimum_sites=2, local_steps=2)
GROUPS = {"adapter": slice(0, 2), "head": slice(2, 3)}


class Puller:
    """Pulls the model towards its own point."""

    def __init__(self, point, trained):
        self.point, self.trained = np.float32(point), trained

    def train(self, order):
        self.trained[order.round_number] += 1
        return np.float32(0.5) * (self.point - order.weights)


class StoppedError(BaseException):
    """Stands for SIGKILL."""


def federate(folder, faults, resume=False, stop_after=None):
    """One life of a coordinator and four sites; returns its outcome, the books and how often each round was trained."""
    trained = {site: Counter() for site in SITES}
    books = {site: open_book(folder / site, site) for site in SITES}
    nodes = {
        site: SiteNode(PLAN, Puller(position - 1.25, trained[site]), books[site], dimension=3)
        for position, site in enumerate(SITES)
    }

    def observer(summary):
        if summary.round_number == stop_after:
            raise StoppedError

    network = SimulatedNetwork(OneByOne({site: node.answer for site, node in nodes.items()}), faults, seed=4)
    start = GlobalModel(np.zeros(3), np.zeros(0, dtype=np.float32))
    setup = RunSetup(PLAN, SITES, network, start, GROUPS, observer=observer)
    return run(setup, folder, resume=resume), books, trained


def open_book(folder, site):
    folder.mkdir(exist_ok=True)
    return Charges(folder, PLAN, site)


def plain_loop():
    weights = np.zeros(3)
    for _ in range(PLAN.rounds):
        weights = weights + np.mean([0.5 * (position - 1.25 - weights) for position in range(4)], axis=0)
    return weights


@pytest.mark.parametrize("faults", [Faults(), Faults(repeat=0.5)], ids=["perfect", "repeats"])
def test_a_network_that_loses_nothing_gives_federated_averaging(tmp_path, faults):
    outcome, books, trained = federate(tmp_path, faults)
    np.testing.assert_allclose(outcome.model.weights, plain_loop(), rtol=1e-6)
    assert all(summary.survivors == 4 and not summary.faults for summary in outcome.rounds)
    assert {book.steps_charged for book in books.values()} == {PLAN.steps}
    assert all(set(counts.values()) == {1} for counts in trained.values())


BAD = Faults(drop=0.1, delay=0.15, repeat=0.2, alter=0.15)


def test_a_bad_network_costs_answers_but_never_a_wrong_or_double_one(tmp_path):
    outcome, books, trained = federate(tmp_path, BAD)
    survivors = [summary.survivors for summary in outcome.rounds]
    faults = Counter()
    for summary in outcome.rounds:
        faults.update(summary.faults)
    assert min(survivors) < 4
    assert {"unreadable", "other-round"} <= set(faults) <= {"unreadable", "other-round"}
    for site, book in books.items():
        assert set(trained[site].values()) <= {1}
        assert book.steps_charged == PLAN.local_steps * len(trained[site])
    assert sum(survivors) <= sum(len(counts) for counts in trained.values())


def test_a_coordinator_stopped_after_any_round_of_a_bad_network_ends_alike(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, whole_books, _ = federate(tmp_path / "whole", BAD)
    (tmp_path / "stopped").mkdir()
    for stop_after in range(1, PLAN.rounds + 1):
        with pytest.raises(StoppedError):
            federate(tmp_path / "stopped", BAD, resume=True, stop_after=stop_after)
    resumed, books, _ = federate(tmp_path / "stopped", BAD, resume=True)
    assert resumed.model.weights.tobytes() == whole.model.weights.tobytes()
    assert [summary.survivors for summary in resumed.rounds] == [summary.survivors for summary in whole.rounds]
    assert {site: book.steps_charged for site, book in books.items()} == {
        site: book.steps_charged for site, book in whole_books.items()
    }
