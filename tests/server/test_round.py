from dataclasses import dataclass, field

import numpy as np
import pytest

from common.errors import TransportError
from common.messages import Refusal, RoundOrder, RoundReply
from common.wire import decode, encode
from server.aggregation.fedavg import FedAvg
from server.gather import Gathered
from server.plain_round import PlainGatherer
from server.round import run_round
from server.state import GlobalModel, RoundSummary, ServerState

SITES = ("a", "b", "c")
GROUPS = {"adapter": slice(0, 2), "head": slice(2, 3)}


def reply(site, *values, plan):
    return encode(RoundReply(plan, 2, site, np.array(values, dtype=np.float32)))


def refusal(site, plan):
    return encode(Refusal(plan, 2, site, "no-update"))


def run_plain(plan, state, transport, rule):
    return run_round(plan, state, PlainGatherer(plan.digest, SITES, transport), rule, GROUPS)


@dataclass
class ScriptedTransport:
    """Yields given answers; keeps the orders it was handed."""

    answers: list[tuple[str, bytes]]
    orders: list[dict[str, bytes]] = field(default_factory=list)

    def exchange(self, orders):
        self.orders.append(dict(orders))
        yield from self.answers


def summary(number):
    return RoundSummary(number, 3, True, {}, {}, 1.0, {}, None, 0.1, 1, 1)


@pytest.fixture
def state():
    return ServerState(
        GlobalModel(np.array([1.0, 2.0, 3.0]), np.full(2, 0.5, dtype=np.float32)), {}, history=(summary(1),)
    )


def test_a_round_sends_the_next_order_and_steps_by_the_mean(make_plan, state):
    plan = make_plan()
    answers = [
        ("a", reply("a", 3, 4, 1, plan=plan.digest)),
        ("c", reply("c", 3, 4, -1, plan=plan.digest)),
        ("b", b"noise"),
    ]
    transport = ScriptedTransport(answers)
    result = run_plain(plan, state, transport, FedAvg(1.0, 0.0))
    assert result.weights.tolist() == [4.0, 6.0, 3.0]
    sent = transport.orders[0]
    assert list(sent) == list(SITES)
    order = decode(sent["a"], RoundOrder)
    assert (order.plan_digest, order.round_number) == (plan.digest, 2)
    assert (order.weights.tolist(), order.basis.tolist()) == ([1.0, 2.0, 3.0], [0.5, 0.5])
    told = result.summary
    assert (told.round_number, told.survivors, told.applied) == (2, 2, True)
    assert (told.update_norm, told.group_norms) == (5.0, {"adapter": 5.0, "head": 0.0})
    assert (told.faults, told.refusals, told.validation) == ({"unreadable": 1}, {}, None)
    assert told.bytes_out == 3 * len(sent["a"])
    assert told.bytes_in == sum(len(answer) for _, answer in answers)
    assert told.seconds > 0


def test_with_too_few_survivors_model_and_moments_stay_and_the_round_says_so(make_plan, state):
    plan = make_plan()
    transport = ScriptedTransport([("a", reply("a", 3, 4, 1, plan=plan.digest)), ("b", refusal("b", plan=plan.digest))])
    result = run_plain(plan, state, transport, FedAvg(1.0, 0.5))
    assert result.weights is state.model.weights
    assert result.moments is state.moments
    told = result.summary
    assert (told.applied, told.survivors, told.refusals) == (False, 1, {"no-update": 1})
    assert (told.update_norm, told.group_norms) == (0.0, {"adapter": 0.0, "head": 0.0})


def test_the_same_state_gives_the_same_order(make_plan, state):
    transport = ScriptedTransport([])
    for _ in range(2):
        run_plain(make_plan(), state, transport, FedAvg(1.0, 0.0))
    assert transport.orders[0] == transport.orders[1]


def test_an_error_of_the_transport_passes_through(make_plan, state):
    class Broken:
        def exchange(self, orders):
            raise TransportError("no site can be reached")

    with pytest.raises(TransportError):
        run_plain(make_plan(), state, Broken(), FedAvg(1.0, 0.0))


def test_an_abort_changes_nothing_and_says_why(make_plan, state):
    class Aborting:
        def gather(self, round_number, weights, basis):
            return Gathered(None, 3, {}, {}, 1, 1, "too few shares")

    result = run_round(make_plan(), state, Aborting(), FedAvg(1.0, 0.5), GROUPS)
    assert result.weights is state.model.weights
    assert (result.summary.applied, result.summary.abort) == (False, "too few shares")
