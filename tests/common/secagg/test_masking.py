from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg import prg
from common.secagg.keys import public_bytes
from common.secagg.masking import (
    add_masks,
    model_digest,
    pairwise_seed,
    pairwise_sign,
    round_context,
    self_mask_seed,
)

KEYS = {name: X25519PrivateKey.from_private_bytes(name.encode() * 32) for name in "abcde"}
CONTEXT = "ab" * 32


def seed_at(site: str, peer: str, context: str = CONTEXT) -> bytes:
    return pairwise_seed(KEYS[site], public_bytes(KEYS[peer]), (site, peer), context)


# --- what masks are bound to ---


def test_the_model_digest_covers_every_value_and_where_the_basis_begins():
    one, two = np.float32([1, 2]), np.float32([3])
    digests = {
        model_digest(one, two),
        model_digest(two, one),
        model_digest(np.float32([1]), np.float32([2, 3])),
        model_digest(np.float32([1, 2, 3]), np.float32([])),
        model_digest(np.float32([1, -2]), two),
        model_digest(np.float32([0.0]), np.float32([])),
        model_digest(np.float32([-0.0]), np.float32([])),
    }
    assert len(digests) == 7
    assert model_digest(one, two) == model_digest(one.astype(">f4"), two.copy())


def test_the_context_covers_each_of_its_parts():
    given = ("cd" * 32, ("a", "b"), 1, "ef" * 32)
    others = [("ce" * 32, *given[1:]), (given[0], ("a", "c"), *given[2:]), (*given[:2], 2, given[3]), (*given[:3], "")]
    contexts = {round_context(*given), *(round_context(*other) for other in others)}
    assert len(contexts) == 5
    assert all(len(context) == 64 for context in contexts)
    assert round_context(given[0], ["a", "b"], *given[2:]) == round_context(*given)


# --- seeds ---


def test_both_ends_derive_the_same_seed_and_nobody_else():
    seeds = {pair: seed_at(*pair) for pair in combinations("abcde", 2)}
    assert all(seed_at(peer, site) == seed for (site, peer), seed in seeds.items())
    assert len(set(seeds.values())) == len(seeds)


def test_a_seed_belongs_to_its_names_and_its_context():
    """Were a key to stand under two names, its masks would still be unrelated."""
    twin = pairwise_seed(KEYS["a"], public_bytes(KEYS["b"]), ("a", "c"), CONTEXT)
    own = self_mask_seed(bytes(32), "a", CONTEXT)
    different = {seed_at("a", "b"), twin, seed_at("a", "b", "cd" * 32), own, self_mask_seed(bytes(32), "b", CONTEXT)}
    assert len(different | {self_mask_seed(bytes(32), "a", "cd" * 32)}) == 6


@pytest.mark.parametrize(("one", "other"), list(combinations("abcde", 2)))
def test_the_two_ends_have_opposite_signs(one, other):
    assert pairwise_sign(one, other) == 1
    assert pairwise_sign(other, one) == -1


# --- masks ---


@settings(max_examples=20)
@given(
    values=st.lists(st.integers(0, 2**32 - 1), max_size=20),
    seeds=st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.sampled_from([1, -1])), max_size=4),
)
def test_masks_are_added_modulo_two_to_the_32(values, seeds):
    """Against Python's own integers; and opposite signs take them off again."""
    start = np.array(values, np.uint32)
    masked = add_masks(start, seeds)
    expected = list(values)
    for seed, sign in seeds:
        words = [int(word) for word in prg.mask(seed, len(values))]
        expected = [(value + sign * word) % 2**32 for value, word in zip(expected, words, strict=True)]
    assert masked.tolist() == expected
    assert start.tolist() == values
    assert add_masks(masked, [(seed, -sign) for seed, sign in seeds]).tolist() == values


def test_pairwise_masks_cancel_in_the_sum():
    total = np.zeros(8, np.uint32)
    for site in KEYS:
        seeds = [(seed_at(site, peer), pairwise_sign(site, peer)) for peer in KEYS if peer != site]
        total += add_masks(np.full(8, 3, np.uint32), seeds)
    assert total.tolist() == [15] * 8
