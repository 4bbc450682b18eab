import pytest

from common.study_messages import BaseQuery, PlanOffer, RunOver
from common.wire import encode
from server.config import WaitingConfig
from server.pacing import PacedTransport, Patience
from tests.vectors.wire.make import PLAN

WAITING = WaitingConfig(answer_seconds=600.0, exchange_seconds=60.0, late_seconds=5.0)


@pytest.mark.parametrize(
    ("enough_since", "deadline"),
    [(None, 130.0), (100.0, 105.0), (104.0, 109.0), (110.0, 120.0), (120.0, 130.0), (129.0, 130.0)],
)
def test_the_late_have_as_long_again_and_never_more_than_the_whole(enough_since, deadline):
    assert Patience(30.0, 2, 5.0).deadline(100.0, enough_since) == deadline


class Network:
    """A network at the bottom, which keeps the patience it had when it was asked."""

    def __init__(self):
        self.patience = Patience(1.0, 1, 1.0)
        self.seen = []

    def exchange(self, orders):
        self.seen.append(self.patience)
        yield from orders.items()


def patience_for(order, count, enough=3):
    network = Network()
    orders = dict.fromkeys([f"site-{number}" for number in range(count)], order)
    assert list(PacedTransport(network, network, WAITING, enough).exchange(orders)) == list(orders.items())
    (seen,) = network.seen
    return seen


def test_training_has_the_long_wait_and_all_else_the_short_one():
    import numpy as np

    from common.messages import RoundOrder
    from common.secagg.messages import SessionInvite

    values = np.zeros(1, dtype=np.float32)
    training = encode(RoundOrder(PLAN, 1, values, np.zeros(0, dtype=np.float32)))
    assert patience_for(training, 4) == Patience(600.0, 3, 5.0)
    assert patience_for(training, 2) == Patience(600.0, 2, 5.0)
    # A node that was started anew loads its base at the first request of a run.
    assert patience_for(encode(SessionInvite(PLAN, PLAN, 1, 1)), 4) == Patience(600.0, 3, 5.0)
    for order in (PlanOffer(PLAN, np.zeros(1, dtype=np.uint8)), RunOver(PLAN, "finished")):
        assert patience_for(encode(order), 4) == Patience(60.0, 3, 5.0)


@pytest.mark.parametrize(("count", "enough"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_dawdling_minority_does_not_hold_up_those_that_fetch_the_base(count, enough):
    assert patience_for(encode(BaseQuery(PLAN)), count) == Patience(600.0, enough, 5.0)
