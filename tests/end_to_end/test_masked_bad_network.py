"""Masked rounds over a network that loses, delays, repeats and alters, and sites that are away for a while."""

from collections import Counter

import numpy as np
import pytest

from common.errors import IntegrityError, SecureAggregationError
from common.messages import RoundOrder
from common.secagg.messages import MaskedOrder, SessionInvite
from common.wire import decode
from server.checkpoint import load_checkpoint
from server.run import run
from simulations.network import Faults, OneByOne, SimulatedNetwork
from tests.masked_sites import DIMENSION, NOTHING, Direct, Hospitals, grid_total, make_hospitals, present

SITES, ROUNDS = 5, 8
BAD = Faults(drop=0.04, delay=0.04, repeat=0.2, alter=0.04)
SEEDS = range(6)


class Story:
    """A run as its rounds went: each summary with the sites that are in the sum, told from the model's move."""

    def __init__(self, hospitals: Hospitals, transport) -> None:
        self.hospitals, self.weights = hospitals, np.zeros(DIMENSION)
        self.rounds = []
        self.ending = ""
        try:
            run(hospitals.setup(transport, observer=self.keep), hospitals.folder)
        except SecureAggregationError as error:
            self.ending = error.message

    def keep(self, summary) -> None:
        after = load_checkpoint(self.hospitals.folder, self.hospitals.plan.digest).model.weights
        digest, number = self.hospitals.plan.digest, summary.round_number
        order = RoundOrder(digest, number, self.weights.astype(np.float32), NOTHING)
        there = present(grid_total(self.weights, after), order, len(self.hospitals.names))
        self.rounds.append((summary, there, after.tobytes() == self.weights.tobytes()))
        self.weights = after

    @property
    def survivors(self) -> list[set[int]]:
        return [there for _, there, _ in self.rounds]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> list[Story]:
    """Several runs on bad networks of one badness."""
    made = []
    for seed in SEEDS:
        terms = {"session_rounds": 4}
        folder = tmp_path_factory.mktemp("bad")
        hospitals = make_hospitals(folder, SITES, dropouts=2, colluders=0, rounds=ROUNDS, secure_aggregation=terms)
        made.append(Story(hospitals, SimulatedNetwork(OneByOne(hospitals.doors()), BAD, seed)))
    return made


def test_a_round_is_the_exact_sum_of_its_survivors_or_changes_nothing_and_says_why(stories):
    for story in stories:
        for summary, there, unchanged in story.rounds:
            if summary.abort:
                assert (summary.applied, there, unchanged) == (False, set(), True)
            else:
                assert (summary.applied, len(there), unchanged) == (True, summary.survivors, False)
                assert summary.survivors >= 3


def test_such_a_network_costs_sites_and_whole_rounds(stories):
    """Otherwise the tests here would show nothing. Session ids are random, hence faults too: few would fall short."""
    seen = [summary for story in stories for summary, _, _ in story.rounds]
    assert len({summary.survivors for summary in seen if summary.applied}) > 1
    assert any(summary.abort for summary in seen)
    faults, refusals = Counter(), Counter()
    for summary in seen:
        faults.update(summary.faults)
        refusals.update(summary.refusals)
    assert faults["unreadable"] > 10
    assert refusals["malformed"] > 3


def test_nobody_is_charged_twice_for_a_round(stories):
    for story in stories:
        for name, trainer in story.hospitals.trainers.items():
            assert set(trainer.trained.values()) <= {1}
            assert story.hospitals.book(name).rounds_charged == len(trainer.trained) <= ROUNDS
        for place, name in enumerate(story.hospitals.names):
            assert story.hospitals.trainers[name].trained.keys() >= {
                number for number, there in enumerate(story.survivors, 1) if place in there
            }


def test_repeats_alone_cost_nothing(tmp_path):
    hospitals = make_hospitals(tmp_path, SITES, dropouts=2, colluders=0, rounds=3)
    story = Story(hospitals, SimulatedNetwork(OneByOne(hospitals.doors()), Faults(repeat=1.0), seed=1))
    assert story.survivors == [set(range(SITES))] * 3
    assert all(summary.faults == {} and summary.refusals == {} for summary, _, _ in story.rounds)


# --- sites that are away ---


def kind_and_round(request: bytes) -> tuple[type, int]:
    """What a request is, and the round that it is about."""
    try:
        message = decode(request, SessionInvite, MaskedOrder)
    except IntegrityError:
        return object, 0
    return type(message), message.first_round if isinstance(message, SessionInvite) else message.round_number


def away(site: str, kind: type, *rounds: int):
    """A site that does not get these messages."""
    return lambda name, request: name == site and kind_and_round(request) in {(kind, number) for number in rounds}


@pytest.fixture
def four(tmp_path) -> Hospitals:
    return make_hospitals(tmp_path, rounds=6, secure_aggregation={"session_rounds": 2})


EVERYBODY, WITHOUT_S3 = {0, 1, 2, 3}, {0, 1, 2}


def test_a_site_that_was_away_takes_part_after_the_next_set_up(four):
    story = Story(four, Direct(four.doors(), away("s3", SessionInvite, 1)))
    assert story.survivors == [WITHOUT_S3, WITHOUT_S3, EVERYBODY, EVERYBODY, EVERYBODY, EVERYBODY]
    assert four.book("s3").rounds_charged == 4


def test_a_site_that_missed_a_round_is_back_in_the_next(four):
    story = Story(four, Direct(four.doors(), away("s3", MaskedOrder, 3)))
    assert story.survivors == [EVERYBODY, EVERYBODY, WITHOUT_S3, EVERYBODY, EVERYBODY, EVERYBODY]
    assert four.book("s3").rounds_charged == 5


def test_a_site_that_lost_its_session_takes_part_after_the_next_set_up(four):
    doors = four.doors()
    first = doors["s3"]

    def forgetful(request: bytes) -> bytes:
        if kind_and_round(request) == (MaskedOrder, 1):
            (four.folder / "s3" / "session.keys").unlink()
            doors["s3"] = four.open("s3").answer
            return doors["s3"](request)
        return first(request)

    doors["s3"] = forgetful
    story = Story(four, Direct(doors))
    assert story.survivors == [WITHOUT_S3, WITHOUT_S3, EVERYBODY, EVERYBODY, EVERYBODY, EVERYBODY]
    assert story.rounds[0][0].refusals == {"other-session": 1}
    assert four.book("s3").rounds_charged == 4


def test_after_a_lost_round_a_new_session_is_opened_with_everybody(four):
    """s3 misses the second session's set-up, and without s2 too a round is lost: it need not wait for the next one."""
    lost = {"s2": away("s2", MaskedOrder, 3), "s3": away("s3", SessionInvite, 3)}
    story = Story(four, Direct(four.doors(), lambda name, request: name in lost and lost[name](name, request)))
    assert story.survivors == [EVERYBODY, EVERYBODY, set(), EVERYBODY, EVERYBODY, EVERYBODY]
    assert story.rounds[2][0].abort == "too few inputs"
    assert [four.book(name).rounds_charged for name in four.names] == [6, 6, 5, 5]


def test_without_enough_sites_there_is_no_session_and_the_run_ends_with_the_reason(four):
    story = Story(four, Direct(four.doors(), lambda name, _: name in {"s1", "s3"}))
    assert [summary.abort for summary, _, _ in story.rounds] == ["no session"] * 3
    assert "no session" in story.ending
    assert {four.book(name).rounds_charged for name in four.names} == {0}
