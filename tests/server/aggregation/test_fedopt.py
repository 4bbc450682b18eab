import math

import numpy as np
import pytest

from server.aggregation.fedopt import FedOpt

TERMS = {"learning_rate": 1.0, "momentum": 0.5, "second_moment": 0.75, "adaptivity": 2.0}


def test_moments_start_at_zero_and_adaptivity_squared():
    moments = FedOpt("fedadam", **TERMS).initial(2)
    assert moments["first_moment"].tolist() == [0.0, 0.0]
    assert moments["second_moment"].tolist() == [4.0, 4.0]


def test_fedadam_by_hand():
    rule = FedOpt("fedadam", **TERMS)
    # Round 1: Δ = 4; m = 0.5 * 4 = 2; v = 0.75 * 4 + 0.25 * 16 = 7; step 2 / (√7 + 2).
    weights, moments = rule.apply(np.zeros(1), np.array([12.0]), 3, rule.initial(1))
    assert weights[0] == pytest.approx(2 / (math.sqrt(7) + 2), rel=1e-15)
    # Round 2: Δ = -2; m = 0.5 * 2 - 0.5 * 2 = 0; v = 0.75 * 7 + 0.25 * 4 = 6.25; step 0.
    again, moments = rule.apply(weights, np.array([-6.0]), 3, moments)
    assert again[0] == weights[0]
    assert moments["second_moment"].tolist() == [6.25]


def test_fedyogi_by_hand():
    rule = FedOpt("fedyogi", **TERMS)
    # Round 1: Δ² = 16 > v = 4, so v grows: 4 + 0.25 * 16 = 8; m = 2; step 2 / (√8 + 2).
    weights, moments = rule.apply(np.zeros(1), np.array([4.0]), 1, rule.initial(1))
    assert weights[0] == pytest.approx(2 / (math.sqrt(8) + 2), rel=1e-15)
    # Round 2: Δ² = 4 < v = 8, so v falls by 0.25 * 4 only: 7.
    _, moments = rule.apply(weights, np.array([2.0]), 1, moments)
    assert moments["second_moment"].tolist() == [7.0]


def test_yogi_leaves_the_second_moment_where_it_equals_the_square():
    before = {"first_moment": np.zeros(1), "second_moment": np.full(1, 4.0)}
    _, moments = FedOpt("fedyogi", **TERMS).apply(np.zeros(1), np.array([2.0]), 1, before)
    assert moments["second_moment"].tolist() == [4.0]


@pytest.mark.parametrize("rule", ["fedadam", "fedyogi"])
def test_second_moment_never_becomes_negative(rule):
    opt, moments = FedOpt(rule, 0.1, 0.0, 0.0, 1e-3), FedOpt(rule, 0.1, 0.0, 0.0, 1e-3).initial(2)
    for scale in (1e3, 1e-3, 31.0, 0.0, 30.999, 1.0):
        _, moments = opt.apply(np.zeros(2), np.array([scale, -scale]), 1, moments)
        assert (moments["second_moment"] >= 0).all()
