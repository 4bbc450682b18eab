from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg.fixed_point import clamp, decode, encode, largest_sum, quantise, restore, update_step

LOWEST, HIGHEST = -(2**31), 2**31 - 1
QUICK = settings(max_examples=50)


@QUICK
@given(sites=st.integers(1, 512), reach=st.integers(0, 2**24))
def test_sums_within_the_bound_and_one_more_is_too_much(sites, reach):
    bound = largest_sum(sites, reach)
    assert sites * (bound + reach) <= HIGHEST
    assert sites * (bound + 1 + reach) > HIGHEST


def test_there_may_be_no_room():
    assert largest_sum(2, 2**30) == -1
    with pytest.raises(ValueError, match="room for one step"):
        clamp(np.int64([1]), largest_sum(2, 2**30))
    with pytest.raises(ValueError, match="the bound is 0"):
        clamp(np.int64([1]), 0)


@QUICK
@given(
    values=st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=8),
    bound=st.integers(1, 10),
)
def test_what_one_unit_adds_cannot_grow_by_clamping(values, bound):
    others, own = np.int64([pair[0] for pair in values]), np.int64([pair[1] for pair in values])
    change = clamp(others + own, bound) - clamp(others, bound)
    assert (np.abs(change) <= np.abs(own)).all()
    assert np.abs(clamp(others, bound)).max() <= bound


@QUICK
@given(values=st.lists(st.integers(LOWEST, HIGHEST), max_size=8))
def test_numbers_come_back(values):
    encoded = encode(np.int64(values))
    assert encoded.dtype == np.uint32
    assert encoded.tolist() == [value % 2**32 for value in values]
    assert decode(encoded).tolist() == values
    assert decode(encoded).dtype == np.int64


@pytest.mark.parametrize("value", [LOWEST - 1, HIGHEST + 1, 2**62, -(2**63)])
def test_a_number_beyond_32_bits_is_refused(value):
    with pytest.raises(ValueError, match="outside 32 bits"):
        encode(np.int64([0, value]))


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="int64, not float64"):
        encode(np.zeros(1))
    with pytest.raises(TypeError, match="uint32, not int64"):
        decode(np.zeros(1, np.int64))


# --- real-valued updates ---


@QUICK
@given(sites=st.integers(1, 512), limit=st.floats(1e-6, 1e6))
def test_the_step_is_the_smallest_power_of_two_that_cannot_wrap(sites, limit):
    """In exact fractions: so many sites at the limit fit in 31 bits, and with half the step they would not."""
    step = Fraction(update_step(sites, limit))
    assert step.numerator == 1 or step.denominator == 1
    assert (step.numerator * step.denominator).bit_count() == 1
    most = Fraction(HIGHEST // sites)
    assert Fraction(limit) / step <= most
    assert 2 * Fraction(limit) / step > most * (1 - Fraction(1, 2**50))


@QUICK
@given(
    updates=st.lists(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=1, max_size=6),
    limit=st.sampled_from([1.0, 3.0, 16.0]),
)
def test_a_sum_of_updates_comes_back_to_half_a_step_each(updates, limit):
    sites = len(updates)
    total = sum(quantise(np.float32(update), sites, limit) for update in updates)
    assert np.abs(total).max() <= HIGHEST
    expected = [sum(min(max(value, -limit), limit) for value in column) for column in zip(*updates, strict=True)]
    restored = restore(decode(encode(total)), sites, limit)
    assert np.abs(restored - expected).max() <= sites * update_step(sites, limit) * 0.5 + 1e-12


def test_the_step_by_hand():
    """Three sites at 16: 715,827,882 steps a site, hence 2^25 steps a unit (44,739,242 would be too many for 2^26)."""
    assert update_step(3, 16.0) == 2.0**-25


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        quantise(np.float32([0, value]), 3, 16.0)
