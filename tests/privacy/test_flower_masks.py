"""Why Cloister has masks of its own: Flower's SecAgg+ folds a seed of 256 bits to 32 bits."""

import base64
import hashlib

import numpy as np
import pytest

from common.secagg import prg

flower = pytest.importorskip(
    "flwr.common.secure_aggregation.secaggplus_utils",
    reason="flwr is not installed, so its masks cannot be compared with ours",
)
RING = 1 << 32
COUNT = 1000


def flower_mask(seed: bytes) -> list[int]:
    return flower.pseudo_rand_gen(seed, RING, [(COUNT,)])[0].tolist()


def test_seeds_whose_words_change_places_have_equal_masks_there_and_not_here():
    first = bytes(range(32))
    second = first[4:8] + first[:4] + first[8:]
    assert flower_mask(first) == flower_mask(second)
    assert np.count_nonzero(prg.mask(first, COUNT) == prg.mask(second, COUNT)) <= 2


def fold(seed: bytes) -> int:
    return int(np.bitwise_xor.reduce(np.frombuffer(seed, "<u4")))


def test_among_some_ten_thousand_honest_seeds_two_have_equal_masks_there():
    """Pairwise seeds there are base64 text: 7 bits a byte, hence 28 bits after folding, and a birthday after 2^14."""
    met: dict[int, bytes] = {}
    for number in range(200_000):
        seed = base64.urlsafe_b64encode(hashlib.sha256(str(number).encode()).digest())
        other = met.setdefault(fold(seed), seed)
        if other != seed:
            break
    assert number < 100_000
    assert flower_mask(seed) == flower_mask(other)
    ours = [prg.mask(base64.urlsafe_b64decode(text), COUNT) for text in (seed, other)]
    assert np.count_nonzero(ours[0] == ours[1]) <= 2
