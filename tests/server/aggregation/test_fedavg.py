import numpy as np

from server.aggregation.fedavg import FedAvg


def test_rate_one_without_momentum_is_the_mean_of_the_updates():
    updates = np.array([[1.0, 2.0], [3.0, -6.0], [5.0, 1.0]])
    weights, moments = FedAvg(1.0, 0.0).apply(np.array([10.0, 20.0]), updates.sum(axis=0), 3, {})
    np.testing.assert_array_equal(weights, np.array([10.0, 20.0]) + updates.mean(axis=0))
    assert moments == {}


def test_momentum_by_hand():
    rule = FedAvg(learning_rate=0.5, momentum=0.5)
    # Round 1: Δ = 4, m = 4, w = 0 + 0.5 * 4 = 2. Round 2: Δ = 2, m = 0.5 * 4 + 2 = 4, w = 2 + 2 = 4.
    weights, moments = rule.apply(np.zeros(1), np.array([8.0]), 2, rule.initial(1))
    assert weights.tolist() == [2.0]
    weights, moments = rule.apply(weights, np.array([4.0]), 2, moments)
    assert weights.tolist() == [4.0]
    assert moments["momentum"].tolist() == [4.0]
