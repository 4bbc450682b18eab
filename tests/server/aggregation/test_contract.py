"""One suite that every server rule passes, in the order of the guarantees of `Aggregator`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from server.aggregation.fedavg import FedAvg
from server.aggregation.fedopt import FedOpt
from server.aggregation.union_step import UnionAdam, UnionSgd

OVER_UPDATES = [
    FedAvg(1.0, 0.0),
    FedAvg(0.5, 0.9),
    FedOpt("fedadam", 0.1, 0.9, 0.99, 1e-3),
    FedOpt("fedadam", 0.1, 0.0, 0.99, 1e-3),
    FedOpt("fedyogi", 0.1, 0.9, 0.99, 1e-3),
]
OVER_GRADIENTS = [
    UnionSgd(((slice(0, 2), 0.5), (slice(2, 3), 0.1)), 0.9),
    UnionSgd(((slice(0, 3), 1.0),), 0.0),
    UnionAdam(((slice(0, 2), 0.5), (slice(2, 3), 0.1)), 0.9, 0.99),
    UnionAdam(((slice(0, 3), 0.1),), 0.0, 0.0),
]
TOTALS = arrays(np.float64, 3, elements=st.floats(-100, 100))

every_rule = pytest.mark.parametrize("rule", [*OVER_UPDATES, *OVER_GRADIENTS], ids=str)
over_updates = pytest.mark.parametrize("rule", OVER_UPDATES, ids=str)
over_gradients = pytest.mark.parametrize("rule", OVER_GRADIENTS, ids=str)


def rounds(rule, totals, count=2):
    weights, moments = np.array([1.0, -2.0, 0.5]), rule.initial(3)
    for total in totals:
        weights, moments = rule.apply(weights, total, count, moments)
    return weights, moments


def assert_same(left, right):
    np.testing.assert_array_equal(left[0], right[0])
    assert left[1].keys() == right[1].keys()
    for name, moment in left[1].items():
        np.testing.assert_array_equal(moment, right[1][name])


@over_updates
@given(totals=st.lists(TOTALS, min_size=1, max_size=4), count=st.integers(1, 5))
def test_of_updates_only_the_mean_matters(rule, totals, count):
    assert_same(rounds(rule, totals, count), rounds(rule, [4.0 * total for total in totals], 4 * count))


@over_gradients
@given(totals=st.lists(TOTALS, min_size=1, max_size=4), count=st.integers(1, 5))
def test_of_gradients_the_total_is_the_mean_already_and_the_count_does_not_matter(rule, totals, count):
    assert_same(rounds(rule, totals, count), rounds(rule, totals, 4 * count))


@every_rule
def test_zero_total_leaves_weights_while_moments_are_initial(rule):
    weights, _ = rounds(rule, [np.zeros(3)])
    np.testing.assert_array_equal(weights, [1.0, -2.0, 0.5])


@over_updates
def test_a_model_follows_an_update(rule):
    weights, _ = rounds(rule, [np.array([2.0, -2.0, 0.0])])
    np.testing.assert_array_equal(np.sign(weights - [1.0, -2.0, 0.5]), [1.0, -1.0, 0.0])


@over_gradients
def test_a_model_goes_down_a_gradient(rule):
    weights, _ = rounds(rule, [np.array([2.0, -2.0, 0.0])])
    np.testing.assert_array_equal(np.sign(weights - [1.0, -2.0, 0.5]), [-1.0, 1.0, 0.0])


@every_rule
@given(totals=st.lists(TOTALS, min_size=1, max_size=4))
def test_equal_inputs_give_equal_bits(rule, totals):
    first, _ = rounds(rule, totals)
    again, _ = rounds(rule, totals)
    assert first.tobytes() == again.tobytes()


@every_rule
def test_arguments_are_not_changed(rule):
    def frozen(values):
        values.setflags(write=False)
        return values

    weights, total = frozen(np.ones(3)), frozen(np.arange(3.0))
    moments = {name: frozen(moment) for name, moment in rule.initial(3).items()}
    _, later = rule.apply(weights, total, 2, moments)
    rule.apply(weights, total, 2, {name: frozen(moment) for name, moment in later.items()})


@every_rule
def test_moments_keep_name_shape_and_type(rule):
    _, later = rounds(rule, [np.ones(3), -np.ones(3)])
    assert later.keys() == rule.initial(3).keys()
    assert all(moment.shape == (3,) and moment.dtype == np.float64 for moment in later.values())


@every_rule
@given(totals=st.lists(TOTALS, min_size=1, max_size=4))
def test_finite_totals_give_finite_weights(rule, totals):
    weights, _ = rounds(rule, totals)
    assert np.isfinite(weights).all()


@every_rule
@pytest.mark.parametrize("count", [0, -1])
def test_a_step_of_nobody_is_an_error(rule, count):
    with pytest.raises(ValueError, match="at least one site"):
        rule.apply(np.zeros(3), np.zeros(3), count, rule.initial(3))
