"""One suite that every server rule passes, in the order of the guarantees of `Aggregator`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.plan import ServerConfig
from server.aggregation.choice import build_aggregator

RULES = [
    ServerConfig(),
    ServerConfig(learning_rate=0.5, momentum=0.9),
    ServerConfig(optimizer="fedadam", learning_rate=0.1, momentum=0.9),
    ServerConfig(optimizer="fedadam", learning_rate=0.1),
    ServerConfig(optimizer="fedyogi", learning_rate=0.1, momentum=0.9),
]
TOTALS = arrays(np.float64, 3, elements=st.floats(-100, 100))


pytestmark = pytest.mark.parametrize("rule", [build_aggregator(config) for config in RULES], ids=str)


def rounds(rule, totals, count=2):
    weights, moments = np.array([1.0, -2.0, 0.5]), rule.initial(3)
    for total in totals:
        weights, moments = rule.apply(weights, total, count, moments)
    return weights, moments


@given(totals=st.lists(TOTALS, min_size=1, max_size=4), count=st.integers(1, 5))
def test_only_the_mean_matters(rule, totals, count):
    few, few_moments = rounds(rule, totals, count)
    many, many_moments = rounds(rule, [4.0 * total for total in totals], 4 * count)
    np.testing.assert_array_equal(few, many)
    assert few_moments.keys() == many_moments.keys()
    for name, moment in few_moments.items():
        np.testing.assert_array_equal(moment, many_moments[name])


def test_zero_total_leaves_weights_while_moments_are_initial(rule):
    weights, _ = rounds(rule, [np.zeros(3)])
    np.testing.assert_array_equal(weights, [1.0, -2.0, 0.5])


def test_a_positive_mean_moves_up_and_a_negative_one_down(rule):
    weights, _ = rounds(rule, [np.array([2.0, -2.0, 0.0])])
    np.testing.assert_array_equal(np.sign(weights - [1.0, -2.0, 0.5]), [1.0, -1.0, 0.0])


@given(totals=st.lists(TOTALS, min_size=1, max_size=4))
def test_equal_inputs_give_equal_bits(rule, totals):
    first, _ = rounds(rule, totals)
    again, _ = rounds(rule, totals)
    assert first.tobytes() == again.tobytes()


def test_arguments_are_not_changed(rule):
    def frozen(values):
        values.setflags(write=False)
        return values

    weights, total = frozen(np.ones(3)), frozen(np.arange(3.0))
    moments = {name: frozen(moment) for name, moment in rule.initial(3).items()}
    _, later = rule.apply(weights, total, 2, moments)
    rule.apply(weights, total, 2, {name: frozen(moment) for name, moment in later.items()})


def test_moments_keep_name_shape_and_type(rule):
    _, later = rounds(rule, [np.ones(3), -np.ones(3)])
    assert later.keys() == rule.initial(3).keys()
    assert all(moment.shape == (3,) and moment.dtype == np.float64 for moment in later.values())


@given(totals=st.lists(TOTALS, min_size=1, max_size=4))
def test_finite_totals_give_finite_weights(rule, totals):
    weights, _ = rounds(rule, totals)
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("count", [0, -1])
def test_an_average_over_nobody_is_an_error(rule, count):
    with pytest.raises(ValueError, match="at least one site"):
        rule.apply(np.zeros(3), np.zeros(3), count, rule.initial(3))
