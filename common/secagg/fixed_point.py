"""Whole numbers modulo 2^32, and how far from zero a site's numbers may lie so that no sum can wrap round."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RING_BITS = 32
_HALF = 1 << (RING_BITS - 1)

Integers = npt.NDArray[np.int64]
Ring = npt.NDArray[np.uint32]


def largest_sum(sites: int, noise_reach: int) -> int:
    """The bound to which each site clamps every coordinate of its sum before it adds noise; below 1 when none is left.

    Guarantees:
        With n sites whose coordinates are within this bound, and whose noise is within `noise_reach`, every total lies
        strictly between -2^31 and 2^31, so that `decode` gives the true sum.

    Args:
        sites: n, at least 1.
        noise_reach: Largest absolute value of one site's noise at one coordinate.
    """
    return (_HALF - 1) // sites - noise_reach


def clamp(values: Integers, bound: int) -> Integers:
    """Cut every coordinate to [-bound, bound].

    Guarantees:
        For any a and x, |clamp(a + x) - clamp(a)| is at most |x| at every coordinate: what one unit adds cannot grow,
        in L1 or in L2, so clamping a site's sum before the noise leaves its sensitivity as it was.

    Raises:
        ValueError: When no bound is left.
    """
    if bound < 1:
        raise ValueError(f"a sum must have room for one step of the grid at least, and the bound is {bound}")
    return np.clip(values, -bound, bound)


def encode(values: Integers) -> Ring:
    """Whole numbers modulo 2^32, `[d]`.

    Raises:
        TypeError: When the values are not int64.
        ValueError: When one lies outside [-2^31, 2^31): it could not be told from another.
    """
    if values.dtype != np.int64:
        raise TypeError(f"values on the grid are int64, not {values.dtype}")
    if values.size and not -_HALF <= int(values.min()) <= int(values.max()) < _HALF:
        raise ValueError("a value on the grid lies outside 32 bits")
    return values.astype(np.uint32)


def decode(total: Ring) -> Integers:
    """The whole numbers in [-2^31, 2^31) that a total modulo 2^32 stands for, `[d]`.

    Raises:
        TypeError: When the total is not uint32.
    """
    if total.dtype != np.uint32:
        raise TypeError(f"a total in the ring is uint32, not {total.dtype}")
    return total.view(np.int32).astype(np.int64)


def update_step(sites: int, limit: float) -> float:
    """Length of a grid step for real-valued updates within `limit`: the smallest power of two whose sums cannot wrap.

    Args:
        sites: n, at least 1.
        limit: Largest absolute value of one coordinate of an update, positive.
    """
    most_steps = (_HALF - 1) // sites
    # frexp: most_steps / limit lies in [2^(e-1), 2^e), so 2^(e-1) steps a unit never exceed it.
    _, exponent = np.frexp(most_steps / limit)
    return float(np.ldexp(1.0, 1 - int(exponent)))


def quantise(update: npt.NDArray[np.float32], sites: int, limit: float) -> Integers:
    """A site's update in whole grid steps, `[d]`: cut to [-limit, limit] and rounded to the nearest step.

    Only for values that may leave the site as they are: cutting and rounding protect nobody.

    Raises:
        ValueError: When a value is NaN or infinite.
    """
    if not np.isfinite(update).all():
        raise ValueError("an update must be finite")
    cut = np.clip(update.astype(np.float64), -limit, limit)
    return np.rint(cut / update_step(sites, limit)).astype(np.int64)


def restore(total: Integers, sites: int, limit: float) -> npt.NDArray[np.float64]:
    """The sum of updates that a total of `quantise`d ones stands for, `[d]`."""
    return total.astype(np.float64) * update_step(sites, limit)
