"""Bound what one unit adds to the sum: clip it in L2 norm and round it toward zero on the integer grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.privacy.plan import PrivacyPlan

Rows = npt.NDArray[np.float64]

# A chunk of gradients is 4 MB of float64, so that the passes over it stay in the cache and memory stays small.
_CHUNK_VALUES = 1 << 19
_EPSILON = float(np.finfo(np.float64).eps)


def clip_to_grid(gradients: npt.NDArray[np.floating], plan: PrivacyPlan) -> npt.NDArray[np.int64]:
    """Clip each unit's gradient to the plan's norm and round it toward zero on the integer grid.

    Guarantees:
        The L2 norm of every returned row, in exact integer arithmetic, is at most `plan.clip_bound`, whatever the
        input: this bound, not a float's, is the sensitivity of the sum. A gradient within the norm is rounded toward
        zero and never scaled; a longer one is scaled down as a whole, so its direction stays. A row depends on its
        own gradient alone.

    Edge cases:
        A row with a NaN or an infinity becomes zero: the unit adds nothing, and nothing is reported. A zero row stays
        zero. Values too large to be squared are scaled before they are squared. No rows give no rows.

    Args:
        gradients: Sum of the unit's per-record gradients, one row a unit, `[U, d]`.
        plan: Clip norm and grid.

    Returns:
        Contributions in grid steps, `[U, d]`.
    """
    clipped = np.empty(gradients.shape, dtype=np.int64)
    for rows in _chunks(gradients.shape):
        clipped[rows] = _clip_rows(gradients[rows], plan)
    return clipped


def clipped_sum(gradients: npt.NDArray[np.floating], plan: PrivacyPlan) -> npt.NDArray[np.int64]:
    """Sum of `clip_to_grid` over the units, `[d]`, without holding all contributions at once; no units sum to zero."""
    total = np.zeros(gradients.shape[1], dtype=np.int64)
    for rows in _chunks(gradients.shape):
        total += _clip_rows(gradients[rows], plan).astype(np.int64).sum(axis=0)
    return total


def _chunks(shape: tuple[int, ...]) -> list[slice]:
    size = max(1, _CHUNK_VALUES // max(1, shape[1]))
    return [slice(start, start + size) for start in range(0, shape[0], size)]


def _clip_rows(gradients: npt.NDArray[np.floating], plan: PrivacyPlan) -> Rows:
    """Whole numbers of grid steps as float64, `[r, d]`; a float64 holds them exactly."""
    bound = float(plan.clip_bound)
    # Overflow, underflow and NaN are not errors here: the rows they spoil are found by their norm.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scaled = np.divide(gradients, plan.grid_step, dtype=np.float64)
        norms = np.sqrt(_squared_norms(scaled))
    spoiled = ~np.isfinite(norms)
    if spoiled.any():
        scaled[spoiled] = _rescued(gradients[spoiled], bound)
        norms[spoiled] = np.sqrt(_squared_norms(scaled[spoiled]))
    scaled *= np.minimum(1.0, bound / np.maximum(norms, 1.0))[:, np.newaxis]
    return _rounded_within(scaled, bound)


def _rounded_within(scaled: Rows, bound: float) -> Rows:
    """Round rows of norm about `bound` or less toward zero, so that the exact norm is at most `bound`."""
    rounded = np.trunc(scaled)
    # Exact: whole numbers whose squares add up to little more than 2^48, far below 2^53, in whatever order.
    over = _squared_norms(rounded) > bound**2
    if over.any():
        # The float norm was off by a relative (d + 8) ε at most, so shrinking by more than that brings the row inside.
        shrink = 1.0 - (scaled.shape[1] + 16) * _EPSILON
        rounded[over] = np.trunc(scaled[over] * shrink)
    return rounded


def _rescued(gradients: npt.NDArray[np.floating], bound: float) -> Rows:
    """Rows whose squares overflowed, brought to a largest value of `bound`; rows that are not finite become zero."""
    rows = np.where(np.isfinite(gradients).all(axis=1, keepdims=True), gradients, 0.0).astype(np.float64)
    peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    return rows / np.where(peaks > 0, peaks, 1.0) * bound


def _squared_norms(rows: Rows) -> npt.NDArray[np.float64]:
    squared: npt.NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows)
    return squared
