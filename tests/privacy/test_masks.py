"""Masks look like noise to whoever lacks their seed, and no keystream is used for two things."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from common.secagg import masking, prg
from tests.privacy.acceptance import FALSE_POSITIVE
from tests.secagg_play import make_study, start_round

COUNT = 1 << 18


def mask_faults(words: np.ndarray) -> set[str]:
    """Names of the properties of uniform, independent 32-bit words that these lack.

    A true generator fails one of them with probability near `FALSE_POSITIVE`.
    """
    found = {
        "every byte as often": chi_square(np.bincount(words.view(np.uint8), minlength=256)),
        "every pair of bytes as often": chi_square(np.bincount(words.view(np.uint16), minlength=1 << 16)),
        "bits are balanced": normal(bits(words).mean(axis=0), 0.5 / np.sqrt(len(words)), 0.5),
        "bits do not follow from the word before": normal(
            (signs(words[1:]) * signs(words[:-1])).mean(axis=0), 1 / np.sqrt(len(words) - 1)
        ),
        "words do not follow from the word before": normal(
            np.array([np.corrcoef(words[1:], words[:-1])[0, 1]]), 1 / np.sqrt(len(words))
        ),
        "words repeat as often as by chance": repeats(words),
    }
    return {name for name, tail in found.items() if tail < FALSE_POSITIVE / len(found)}


def bits(words: np.ndarray) -> np.ndarray:
    """`[n, 32]`, lowest bit first."""
    return np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")


def signs(words: np.ndarray) -> np.ndarray:
    return 2.0 * bits(words) - 1.0


def chi_square(counts: np.ndarray) -> float:
    """Both tails: counts that are too even are no chance either."""
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    law = stats.chi2(len(counts) - 1)
    return float(2 * min(law.cdf(statistic), law.sf(statistic)))


def normal(values: np.ndarray, spread: float, centre: float = 0.0) -> float:
    """The tail of the farthest of several values, times their number (Bonferroni)."""
    return float(2 * stats.norm.sf(np.abs(values - centre).max() / spread) * len(values))


def repeats(words: np.ndarray) -> float:
    """Words that occurred before: n (n - 1) / 2^33 on average, nearly Poisson."""
    law, count = stats.poisson(len(words) * (len(words) - 1) / 2**33), len(words) - len(np.unique(words))
    return float(2 * min(law.cdf(count), law.sf(count - 1)))


@pytest.mark.parametrize("seed", [bytes(32), bytes([255]) * 32, bytes(range(32)), b"\x01" + bytes(31)])
def test_masks_pass_for_uniform_words(seed):
    """Seeds of great regularity: nothing of it shows."""
    assert mask_faults(prg.mask(seed, COUNT)) == set()


def test_the_first_words_of_many_masks_pass_for_uniform_words():
    """Across seeds that differ in one number, as a round's seeds might if they were not derived."""
    words = np.concatenate([prg.mask(number.to_bytes(32, "big"), 16) for number in range(COUNT // 64)])
    assert mask_faults(words) == set()


def congruential() -> np.ndarray:
    """Numerical Recipes' generator; its lowest bit alternates."""
    words = np.empty(COUNT, np.uint32)
    state = 1
    for place in range(COUNT):
        state = (1664525 * state + 1013904223) % 2**32
        words[place] = state
    return words


GOOD = prg.mask(b"planted faults start from here..", COUNT)
PLANTED = {
    "a bit that is never set": (GOOD & 0x7FFFFFFF, "bits are balanced"),
    "one value of a byte is missing": (
        np.where(GOOD % 256 == 255, GOOD - 1, GOOD).astype(np.uint32),
        "every byte as often",
    ),
    "slightly too few ones": (
        GOOD & ~np.bitwise_and.reduce([np.roll(GOOD, shift) for shift in range(5, 11)]),
        "bits are balanced",
    ),
    "two bytes that agree": ((GOOD & 0xFFFFFF00) | (GOOD >> 8 & 0xFF), "every pair of bytes as often"),
    "a counter": (np.arange(COUNT, dtype=np.uint32) * np.uint32(2654435761), "every pair of bytes as often"),
    "a linear congruence": (congruential(), "bits do not follow from the word before"),
    "half of the word before": (
        (GOOD // 2 + np.roll(GOOD, 1) // 2).astype(np.uint32),
        "words do not follow from the word before",
    ),
    "a keystream that starts again": (np.tile(GOOD[: COUNT // 2], 2), "words repeat as often as by chance"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_generators_fail(fault):
    words, broken = PLANTED[fault]
    assert broken in mask_faults(words)


# --- no keystream twice ---

ROUNDS, SESSION_ROUNDS = 1000, 250


@pytest.fixture(scope="module")
def keyed(tmp_path_factory) -> list[tuple[bytes, str, int]]:
    """Seed, site and round of every mask that four sites expand in 1,000 rounds of four sessions."""
    study = make_study(tmp_path_factory.mktemp("study"), rounds=ROUNDS, session_rounds=SESSION_ROUNDS)
    seen: list[tuple[bytes, str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        for first in range(1, ROUNDS + 1, SESSION_ROUNDS):
            roster = study.roster(SESSION_ROUNDS, session=f"{first:064x}", first_round=first)
            session = study.session(roster)
            for number in range(first, first + SESSION_ROUNDS):
                game = start_round(study, session, dimension=1, number=number)
                for name, site in study.sites.items():
                    here = (name, number)
                    patch.setattr(
                        masking.prg, "mask", lambda seed, count, at=here: seen.append((seed, *at)) or zeros(count)
                    )
                    site.mask(game.order, site.terms(game.order), np.zeros(1, np.int64))
    return seen


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


def test_no_keystream_is_used_twice_in_a_thousand_rounds(keyed):
    """Each seed keys one pair's mask of one round, at its two ends, or one site's own mask."""
    places: dict[bytes, list[tuple[str, int]]] = {}
    for seed, site, number in keyed:
        places.setdefault(seed, []).append((site, number))
    assert len(keyed) == ROUNDS * 4 * 4
    assert Counter(len(uses) for uses in places.values()) == {1: ROUNDS * 4, 2: ROUNDS * 6}
    assert all(len({number for _, number in uses}) == 1 for uses in places.values())
    pairs = Counter(tuple(sorted(site for site, _ in uses)) for uses in places.values())
    assert len(pairs) == 4 + 6
    assert set(pairs.values()) == {ROUNDS}


def test_seeds_pass_for_uniform_words(keyed):
    seeds = dict.fromkeys(seed for seed, _, _ in keyed)
    assert mask_faults(np.frombuffer(b"".join(seeds), np.uint32)) == set()
