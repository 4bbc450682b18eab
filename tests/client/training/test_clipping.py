import math
import time
import tracemalloc
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.training.clipping import _rounded_within, clip_to_grid, clipped_sum
from common.privacy.plan import PrivacyPlan
from common.randomness import public_generator
from tests.privacy.acceptance import clipping_faults

INFINITY, NAN = math.inf, math.nan
HUGE, SUBNORMAL = 1e300, 5e-324


def make_plan(clip_norm: float = 1.0, grid_bits: int = 16) -> PrivacyPlan:
    return PrivacyPlan("patient", 0.1, 1, clip_norm, 1.0, 10.0, 1e-5, grid_bits)


def clip(rows: list[list[float]], plan: PrivacyPlan) -> list[list[int]]:
    return clip_to_grid(np.array(rows, dtype=np.float64), plan).tolist()


def matrices() -> st.SearchStrategy[list[list[float]]]:
    tricky = st.sampled_from([0.0, -0.0, 1.0, -1.0, HUGE, -HUGE, SUBNORMAL, 1e154, 1e-160, INFINITY, -INFINITY, NAN])
    value = st.one_of(tricky, st.floats(-2, 2), st.floats())
    return st.integers(1, 6).flatmap(
        lambda width: st.lists(st.lists(value, min_size=width, max_size=width), max_size=4)
    )


CLIP_NORMS = st.sampled_from([1.0, 0.1, 1.3, 3e-8, 1e-100, 1e100, 7777.7])


@settings(deadline=None)
@given(rows=matrices(), clip_norm=CLIP_NORMS, grid_bits=st.integers(8, 24))
@example(rows=[[HUGE, -HUGE]], clip_norm=1e-100, grid_bits=24)
@example(rows=[[1.0, 1.0], [NAN, 1.0]], clip_norm=1.0, grid_bits=8)
def test_the_integer_norm_never_exceeds_the_bound(rows: list[list[float]], clip_norm: float, grid_bits: int) -> None:
    plan = make_plan(clip_norm, grid_bits)
    width = len(rows[0]) if rows else 3
    clipped = clip_to_grid(np.array(rows, dtype=np.float64).reshape(-1, width), plan)
    assert clipped.shape == (len(rows), width)
    assert clipping_faults(clipped, plan) == set()


def ideal(row: list[float], plan: PrivacyPlan) -> list[mpmath.mpf]:
    """The clipped row before rounding, in 60 digits."""
    values = [mpmath.mpf(value) for value in row]
    norm = mpmath.sqrt(mpmath.fsum(value**2 for value in values))
    factor = min(mpmath.mpf(1), mpmath.mpf(plan.clip_norm) / norm) if norm else mpmath.mpf(1)
    return [value * factor / mpmath.mpf(plan.grid_step) for value in values]


@settings(deadline=None)
@given(rows=matrices(), clip_norm=CLIP_NORMS, grid_bits=st.integers(8, 24))
def test_rows_are_the_ideal_ones_rounded_toward_zero(rows: list[list[float]], clip_norm: float, grid_bits: int) -> None:
    """Against 60 digits: the same sign, never longer (but for a division's last bit), less than a step shorter."""
    plan = make_plan(clip_norm, grid_bits)
    finite = [row for row in rows if all(math.isfinite(value) for value in row)]
    with mpmath.workdps(60):
        for row, clipped in zip(finite, clip(finite, plan) if finite else [], strict=True):
            for wanted, found in zip(ideal(row, plan), clipped, strict=True):
                assert found * wanted >= 0
                assert abs(found) <= abs(wanted) * (1 + mpmath.mpf(2) ** -49)
                assert abs(found) > abs(wanted) * (1 - mpmath.mpf(2) ** -45) - 1


@settings(deadline=None)
@given(st.lists(st.floats(-0.4, 0.4), min_size=1, max_size=6))
def test_a_gradient_within_the_norm_is_only_rounded_toward_zero(row: list[float]) -> None:
    """With a norm of 1 the grid is exact in float64, so the oracle is exact too."""
    assert clip([row], make_plan()) == [[math.trunc(Fraction(value) * 2**16) for value in row]]


def test_zero_stays_zero() -> None:
    assert clip([[0.0, -0.0, 0.0]], make_plan()) == [[0, 0, 0]]


@pytest.mark.parametrize("spoiler", [NAN, INFINITY, -INFINITY])
def test_a_row_that_is_not_finite_becomes_zero_and_its_neighbours_stay(spoiler: float) -> None:
    assert clip([[0.25, 0.5], [0.25, spoiler], [0.5, 0.0]], make_plan(1.0, 8)) == [[64, 128], [0, 0], [128, 0]]


def test_huge_values_keep_their_direction_although_their_squares_overflow() -> None:
    assert clip([[HUGE, 0.0], [3e300, -4e300], [1.7e308, 1.7e308]], make_plan(1.0, 8)) == [
        [256, 0],
        [153, -204],
        [181, 181],
    ]


def test_huge_beside_tiny() -> None:
    assert clip([[HUGE, SUBNORMAL, 1.0]], make_plan()) == [[2**16, 0, 0]]


def test_subnormal_values_round_to_zero() -> None:
    assert clip([[SUBNORMAL, -SUBNORMAL]], make_plan()) == [[0, 0]]


@pytest.mark.parametrize("clip_norm", [1.0, 0.1, 1.3])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_single_coordinate_at_the_bound_and_beside_it(clip_norm: float, sign: int) -> None:
    plan = make_plan(clip_norm)
    below, above = math.nextafter(clip_norm, 0), math.nextafter(clip_norm, INFINITY)
    assert clip([[sign * clip_norm]], plan) == [[sign * 2**16]]
    assert clip([[sign * below]], plan) == [[sign * (2**16 - 1)]]
    assert abs(clip([[sign * above]], plan)[0][0]) in {2**16 - 1, 2**16}


def test_a_long_row_is_scaled_as_a_whole() -> None:
    assert clip([[30.0, 40.0], [-30.0, 40.0]], make_plan(1.0, 8)) == [[153, 204], [-153, 204]]


@pytest.mark.parametrize("grid_bits", [8, 16, 24])
def test_many_coordinates_just_over_the_norm(grid_bits: int) -> None:
    """Rounding errors of a norm add up over coordinates; the integer bound may not feel it."""
    plan = make_plan(1.3, grid_bits)
    generator = public_generator(1, "rows")
    rows = generator.standard_normal((40, 4099))
    rows *= (1.3 * (1 + generator.uniform(-1e-13, 1e-13, (40, 1)))) / np.linalg.norm(rows, axis=1, keepdims=True)
    flat = np.full((1, 4096), 1.3 / 64)
    assert clipping_faults(clip_to_grid(rows, plan), plan) == set()
    assert clip_to_grid(flat, plan).tolist() == [[2**grid_bits // 64] * 4096]


def test_a_row_whose_exact_norm_is_over_is_shrunk() -> None:
    """256² + 1 is over 256²: such a row can come out of a norm whose float was a last bit too small."""
    rows = np.array([[256.0, 1.0], [256.0, 0.5], [-180.5, 181.5]])
    assert _rounded_within(rows, 256.0).tolist() == [[255, 0], [256, 0], [-180, 181]]


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = public_generator(2, "rows").standard_normal((9, 1003))
    rows[4, 7] = NAN
    plan = make_plan(1.3, 24)
    together = clip_to_grid(rows, plan)
    assert np.array_equal(clip_to_grid(rows[::-1], plan)[::-1], together)
    for index in range(9):
        assert np.array_equal(clip_to_grid(rows[index : index + 1], plan)[0], together[index])


def test_float32_is_clipped_in_float64() -> None:
    rows = public_generator(3, "rows").standard_normal((3, 50)).astype(np.float32)
    assert np.array_equal(clip_to_grid(rows, make_plan()), clip_to_grid(rows.astype(np.float64), make_plan()))


def test_the_input_is_left_as_it_was() -> None:
    rows = np.array([[3.0, 4.0], [NAN, 1.0], [HUGE, 1.0]])
    before = rows.copy()
    clip_to_grid(rows, make_plan())
    assert np.array_equal(rows, before, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_nothing_to_clip(shape: tuple[int, int]) -> None:
    assert clip_to_grid(np.zeros(shape), make_plan()).shape == shape
    assert clipped_sum(np.zeros(shape), make_plan()).tolist() == [0] * shape[1]


def test_the_sum_is_that_of_the_clipped_rows() -> None:
    rows = public_generator(4, "rows").standard_normal((700, 1001))
    rows[3, 3], rows[5, 0] = NAN, HUGE
    total = clipped_sum(rows, make_plan())
    assert total.dtype == np.int64
    assert total.tolist() == clip_to_grid(rows, make_plan()).sum(axis=0).tolist()


def test_four_million_values_take_a_fraction_of_a_second_and_little_memory() -> None:
    """0.2 s for [2048, 8000] on a quiet core; the bounds here only keep a loop or a copy of everything out."""
    rows = public_generator(5, "rows").standard_normal((512, 8000))
    start = time.perf_counter()
    clipped_sum(rows, make_plan())
    assert time.perf_counter() - start < 1.0
    tracemalloc.start()
    clipped_sum(rows, make_plan())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes
