from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from server.running_sum import SITE_LIMIT, VALUE_LIMIT, RunningSum

LARGEST = float(np.nextafter(np.float32(VALUE_LIMIT), np.float32(0)))
UPDATES = st.lists(arrays(np.float32, 3, elements=st.floats(-LARGEST, LARGEST, width=32)), min_size=1, max_size=6)


def added(updates):
    total = RunningSum(3)
    for update in updates:
        total.add(update)
    return total


@given(updates=UPDATES, data=st.data())
def test_order_of_arrival_does_not_change_a_bit(updates, data):
    shuffled = data.draw(st.permutations(updates))
    assert added(updates).total.tobytes() == added(shuffled).total.tobytes()


def test_a_plain_float_sum_would_depend_on_the_order():
    large, small = np.float32(4096.0), np.float32(2.0**-13)
    assert np.float32(np.float32(large + small) - large) != np.float32(np.float32(large - large) + small)
    values = [np.full(3, value, dtype=np.float32) for value in (large, small, -large)]
    assert added(values).total.tolist() == [2.0**-13] * 3


@given(updates=UPDATES)
def test_error_is_within_the_stated_bound(updates):
    total = added(updates).total
    for column, value in enumerate(total):
        exact = sum(Fraction(float(update[column])) for update in updates)
        # 2^-37 a site from the grid; the last bits go when 63-bit integers become doubles.
        assert abs(Fraction(float(value)) - exact) <= len(updates) * Fraction(1, 2**37) + abs(exact) / 2**53


def test_values_of_at_least_2_to_the_minus_13_are_exact():
    value = np.nextafter(np.float32(2.0**-13), np.float32(1))
    assert added([np.full(3, value, dtype=np.float32)]).total.tolist() == [float(value)] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, VALUE_LIMIT, -VALUE_LIMIT])
def test_values_out_of_range_are_never_added(bad):
    total = RunningSum(2)
    with pytest.raises(ValueError, match="out of range"):
        total.add(np.array([0.0, bad], dtype=np.float32))
    assert total.count == 0
    assert total.total.tolist() == [0.0, 0.0]


def test_another_length_is_never_added():
    with pytest.raises(ValueError, match="another length"):
        RunningSum(2).add(np.zeros(1, dtype=np.float32))


def test_the_largest_sum_does_not_overflow():
    total = RunningSum(1)
    for _ in range(SITE_LIMIT):
        total.add(np.array([LARGEST], dtype=np.float32))
    assert total.total.tolist() == [SITE_LIMIT * LARGEST]
    with pytest.raises(ValueError, match="too many"):
        total.add(np.zeros(1, dtype=np.float32))


def test_small_values_are_not_lost_in_a_sum_too_large_for_a_double():
    values = [np.array([LARGEST], dtype=np.float32)] * 64 + [np.array([2.0**-36], dtype=np.float32)] * 16
    forward, backward = RunningSum(1), RunningSum(1)
    for value, reverse in zip(values, values[::-1], strict=True):
        forward.add(value)
        backward.add(reverse)
    assert forward.total == backward.total != 64 * LARGEST
