from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.charges import Charges
from client.node import SiteNode
from common.config import parse_config
from common.errors import ConfigError, IntegrityError, TransportError
from common.messages import Refusal, RoundOrder, RoundReply
from common.transport import Transport
from common.wire import decode, encode
from simulations.network import Fault, Faults, OneByOne, SimulatedNetwork
from tests.client.small_plan import small_plan

ORDERS = {"north": b"order for north", "south": b"order for south"}
NONE = dict.fromkeys(get_args(Fault), 0)


class EchoSite:
    def __init__(self):
        self.received = []

    def answer(self, order):
        self.received.append(order)
        return b"answer to " + order


@pytest.fixture
def sites():
    return {"north": EchoSite(), "south": EchoSite()}


def network(sites, seed=1, **faults):
    return SimulatedNetwork(OneByOne({name: site.answer for name, site in sites.items()}), Faults(**faults), seed)


def differing(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_a_good_network_brings_one_answer_from_each_site_in_order(sites):
    transport: Transport = network(sites)
    assert list(transport.exchange(ORDERS)) == [(name, b"answer to " + order) for name, order in ORDERS.items()]
    assert list(transport.exchange({"south": b"only"})) == [("south", b"answer to only")]


def test_traffic_counts_what_each_side_sends(sites):
    net = network(sites)
    list(net.exchange(ORDERS))
    assert (net.traffic.orders, net.traffic.order_bytes) == (2, 30)
    assert (net.traffic.replies, net.traffic.reply_bytes) == (2, 50)
    assert net.traffic.faults == NONE


def test_sites_are_asked_one_by_one_as_answers_are_taken(sites):
    answers = network(sites).exchange(ORDERS)
    next(answers)
    assert len(sites["north"].received) == 1
    assert sites["south"].received == []


def test_an_unknown_site_is_an_error_before_anything_is_sent(sites):
    with pytest.raises(TransportError, match="site west is not on this network"):
        list(network(sites).exchange({"north": b"x", "west": b"x"}))
    assert sites["north"].received == []


# --- one fault at a time ---------------------------------------------------------------------------------------------


def test_a_dropped_order_does_not_arrive(sites):
    net = network(sites, drop=1)
    assert list(net.exchange(ORDERS)) == []
    assert all(site.received == [] for site in sites.values())
    assert net.traffic.faults == {**NONE, "drop order": 2}
    assert (net.traffic.orders, net.traffic.replies) == (2, 0)


def test_a_dropped_reply_was_made_all_the_same(sites):
    net = network(sites, drop=0.5)
    answers = sum(len(list(net.exchange({"north": f"order {turn}".encode()}))) for turn in range(40))
    faults = net.traffic.faults
    assert min(faults["drop order"], faults["drop reply"], answers) > 3
    assert len(sites["north"].received) == 40 - faults["drop order"]
    assert answers == 40 - faults["drop order"] - faults["drop reply"]


def test_a_delayed_reply_comes_with_the_next_exchange_and_only_once(sites):
    net = network(sites, delay=1)
    assert list(net.exchange(ORDERS)) == []
    assert list(net.exchange({})) == [(name, b"answer to " + order) for name, order in ORDERS.items()]
    assert list(net.exchange({})) == []
    assert net.traffic.faults == {**NONE, "delay reply": 2}


def test_a_repeated_order_is_answered_twice_and_a_repeated_reply_arrives_twice(sites):
    net = network(sites, repeat=1)
    assert Counter(net.exchange(ORDERS)) == {(name, b"answer to " + order): 4 for name, order in ORDERS.items()}
    assert sites["north"].received == [ORDERS["north"]] * 2
    assert net.traffic.faults == {**NONE, "repeat order": 2, "repeat reply": 4}


def test_alteration_changes_exactly_one_byte_each_way(sites):
    net = network(sites, alter=1)
    answers = dict(net.exchange(ORDERS))
    for name, site in sites.items():
        [received] = site.received
        assert differing(received, ORDERS[name]) == 1
        assert differing(answers[name], b"answer to " + received) == 1
    assert net.traffic.faults == {**NONE, "alter order": 2, "alter reply": 2}


def test_an_altered_message_is_never_the_same_message():
    site = EchoSite()
    net = network({"north": site}, alter=1)
    for turn in range(1000):
        order = f"order {turn}".encode()
        [(_, answer)] = net.exchange({"north": order})
        assert site.received[-1] != order
        assert answer != b"answer to " + site.received[-1]


def test_the_two_answers_to_a_repeated_order_meet_faults_of_their_own():
    net = network({"north": EchoSite()}, repeat=1, drop=0.5)
    arrived = {len(list(net.exchange({"north": f"order {turn}".encode()}))) for turn in range(40)}
    assert arrived == {0, 2, 4}


def test_an_empty_message_cannot_be_altered():
    net = SimulatedNetwork(OneByOne({"north": lambda order: order}), Faults(alter=1), 1)
    assert list(net.exchange({"north": b""})) == [("north", b"")]
    assert net.traffic.faults == NONE


# --- the same way each time ------------------------------------------------------------------------------------------

MIXED = {"drop": 0.2, "repeat": 0.2, "alter": 0.2}


def course(net, turns):
    return [list(net.exchange({name: f"{name} {turn}".encode() for name in ("north", "south")})) for turn in turns]


def test_the_same_seed_gives_the_same_course_also_when_resumed_in_the_middle():
    def fresh(seed=1):
        return network({"north": EchoSite(), "south": EchoSite()}, seed, **MIXED)

    whole = course(fresh(), range(20))
    assert whole == course(fresh(), range(20))
    assert whole[8:] == course(fresh(), range(8, 20))
    assert whole != course(fresh(seed=2), range(20))


@given(st.floats(0, 1), st.integers(0, 50))
def test_a_likelier_fault_hits_whatever_a_rarer_one_hit(probability, turn):
    def lost(drop):
        return not list(network({"north": EchoSite()}, drop=drop).exchange({"north": f"{turn}".encode()}))

    assert lost(probability) <= lost(min(1.0, probability + 0.1))


def test_faults_come_about_as_often_as_asked_for():
    net = network({"north": EchoSite()}, alter=0.3)
    course_length = 1000
    for turn in range(course_length):
        list(net.exchange({"north": f"order {turn}".encode()}))
    # 4.5 standard deviations of a binomial draw: sqrt(1000 * 0.3 * 0.7) = 14.5.
    assert abs(net.traffic.faults["alter order"] - 300) < 65
    assert abs(net.traffic.faults["alter reply"] - 300) < 65


@pytest.mark.parametrize("values", [{"drop": 1.1}, {"alter": -0.1}, {"lose": 0.1}, {"delay": "often"}])
def test_impossible_faults_are_config_errors(values):
    with pytest.raises(ConfigError):
        parse_config(Faults, values, "scenario")


# --- real nodes on a bad network -------------------------------------------------------------------------------------


class CountingTrainer:
    def __init__(self):
        self.rounds = []

    def train(self, order):
        self.rounds.append(order.round_number)
        return np.float32([len(self.rounds)])


def test_nodes_on_a_bad_network_train_a_round_once_and_good_answers_are_consistent(tmp_path):
    plan = small_plan(rounds=30)
    trainers = {"north": CountingTrainer(), "south": CountingTrainer()}
    books, nodes = {}, {}
    for name, trainer in trainers.items():
        (tmp_path / name).mkdir()
        books[name] = Charges(tmp_path / name, plan, name)
        nodes[name] = SiteNode(plan, trainer, books[name], dimension=1).answer
    net = SimulatedNetwork(OneByOne(nodes), Faults(drop=0.1, delay=0.2, repeat=0.3, alter=0.2), 7)

    good, damaged = {}, 0
    for round_number in range(1, plan.rounds + 1):
        order = encode(RoundOrder(plan.digest, round_number, np.float32([0.5]), np.float32([])))
        for site, answer in net.exchange(dict.fromkeys(nodes, order)):
            try:
                message = decode(answer, RoundReply, Refusal)
            except IntegrityError:
                damaged += 1
                continue
            assert message.site == site
            if isinstance(message, RoundReply):
                assert round_number - message.round_number in (0, 1)
                assert good.setdefault((site, message.round_number), answer) == answer
            else:
                assert message.code == "malformed"

    assert min(net.traffic.faults.values()) > 0
    assert damaged > 0
    assert len(good) > 20
    for site, trainer in trainers.items():
        assert len(set(trainer.rounds)) == len(trainer.rounds) == books[site].rounds_charged
