from fractions import Fraction
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.secagg import shamir
from common.secagg.shamir import PRIME, SHARE_BYTES, deal, recover

NUMBERS = st.binary(min_size=32, max_size=32)
SMALL_PRIME = 257


def number(value: int) -> bytes:
    return value.to_bytes(32, "big")


def test_the_modulus_is_the_smallest_prime_above_two_to_the_256():
    """By Miller and Rabin's test with 98 bases; every number between has a witness against it."""
    assert PRIME == 2**256 + 297
    assert is_prime(PRIME)
    assert not any(is_prime(2**256 + offset) for offset in range(1, 297))


def is_prime(candidate: int) -> bool:
    if candidate % 2 == 0:
        return False
    odd, twos = candidate - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 100):
        powers = [pow(base, odd << shift, candidate) for shift in range(twos)]
        if powers[0] != 1 and candidate - 1 not in powers:
            return False
    return True


# --- vectors ---


def test_shares_by_hand():
    """7 + 3 x + 2 x² at 1, 2, 3 and 10."""
    shares = deal(number(7), [number(3), number(2)], [1, 2, 3, 10])
    assert [int.from_bytes(share, "big") for share in shares] == [12, 21, 34, 237]
    assert {len(share) for share in shares} == {SHARE_BYTES}


def test_shares_wrap_at_the_modulus():
    """(2^256 - 1) (1 + x): at 1 it is 2^257 - 2 = PRIME + 2^256 - 299, at 3 it is 2^258 - 4 = 3 PRIME + 2^256 - 895."""
    most = bytes([255]) * 32
    at_one, at_three = (int.from_bytes(share, "big") for share in deal(most, [most], [1, 3]))
    assert (at_one, at_three) == (2**256 - 299, 2**256 - 895)


def test_a_share_may_need_its_33rd_byte():
    """(2^256 - 1) + x at 1 is 2^256."""
    share = deal(bytes([255]) * 32, [number(1)], [1])[0]
    assert share == b"\x01" + bytes(32)
    assert recover({1: share, 2: deal(bytes([255]) * 32, [number(1)], [2])[0]}, 2) == bytes([255]) * 32


# --- against other code ---


def lagrange_over_fractions(points: dict[int, int]) -> int:
    """The value at 0, in exact fractions, brought into the field at the end."""
    total = Fraction(0)
    for own, value in points.items():
        term = Fraction(value)
        for other in points:
            if other != own:
                term *= Fraction(-other, own - other)
        total += term
    return total.numerator * pow(total.denominator, -1, PRIME) % PRIME


@settings(max_examples=40)
@given(
    secret=NUMBERS,
    coefficients=st.lists(NUMBERS, max_size=8),
    holders=st.lists(st.integers(1, 512), min_size=9, max_size=14, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_any_threshold_of_shares_gives_the_secret_back(secret, coefficients, holders, order):
    threshold = len(coefficients) + 1
    shares = dict(zip(holders, deal(secret, coefficients, holders), strict=True))
    for holder, share in shares.items():
        powers = [secret, *coefficients]
        expected = sum(int.from_bytes(power, "big") * holder**exponent for exponent, power in enumerate(powers))
        assert int.from_bytes(share, "big") == expected % PRIME
    chosen = order.sample(holders, threshold)
    assert recover({holder: shares[holder] for holder in chosen}, threshold) == secret
    values = {holder: int.from_bytes(shares[holder], "big") for holder in chosen}
    assert lagrange_over_fractions(values) == int.from_bytes(secret, "big")


def test_below_the_threshold_every_secret_is_as_likely(monkeypatch):
    """Over a tiny field, by counting: two shares of a quadratic are the same for each secret equally often."""
    monkeypatch.setattr(shamir, "PRIME", 7)
    seen = {}
    for secret, first, second in product(range(7), repeat=3):
        shares = tuple(shamir._value_at([second, first, secret], point) for point in (1, 4))
        seen.setdefault(shares, []).append(secret)
    assert all(sorted(secrets) == list(range(7)) for secrets in seen.values())
    assert len(seen) == 49


def test_the_weights_are_those_of_brute_force(monkeypatch):
    """Over the field of 257: the one quadratic through three values, found by trying all of them at one point."""
    monkeypatch.setattr(shamir, "PRIME", SMALL_PRIME)
    polynomial = [5, 250, 99]
    values = {point: shamir._value_at(polynomial, point) for point in range(1, 7)}
    for chosen in combinations(values, 3):
        weights = shamir._weights_at_zero(chosen)
        assert sum(weight * values[point] for weight, point in zip(weights, chosen, strict=True)) % SMALL_PRIME == 99


def test_more_shares_than_the_threshold_change_nothing():
    shares = dict(enumerate(deal(number(5), [number(6)], [1, 2, 3, 4]), start=1))
    assert recover(shares, 2) == number(5)
    # Those at the lowest points are used: what the others hold does not matter.
    assert recover(shares | {4: bytes(SHARE_BYTES)}, 2) == number(5)


# --- refusals ---


@pytest.mark.parametrize(
    ("secret", "coefficients", "points"),
    [
        (bytes(31), [number(1)], [1]),
        (number(1), [bytes(33)], [1]),
        (number(1), [number(1)], [1, 1]),
        (number(1), [number(1)], [0, 1]),
        (number(1), [number(1)], [PRIME]),
        (number(1), [number(1)], [-1]),
    ],
)
def test_nothing_is_dealt_wrongly(secret, coefficients, points):
    with pytest.raises(ValueError, match=r"32 bytes|points"):
        deal(secret, coefficients, points)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({}, "needs 2 shares, and there are 0"),
        ({1: bytes(33)}, "needs 2 shares, and there are 1"),
        ({1: bytes(33), 2: bytes(32)}, "33 bytes"),
        ({1: bytes(33), 2: PRIME.to_bytes(33, "big")}, "below 2"),
        ({1: (2**256).to_bytes(33, "big"), 2: (2**256).to_bytes(33, "big")}, "no"),
    ],
)
def test_shares_that_cannot_be_right_are_refused(shares, words):
    with pytest.raises(ProtocolError, match=words if words != "no" else "do not belong to one 32-byte secret"):
        recover(shares, 2)


def test_an_altered_share_gives_another_secret():
    """Which is why every secret has a commitment."""
    shares = dict(enumerate(deal(number(5), [number(6)], [1, 2]), start=1))
    altered = shares | {2: number(0).rjust(SHARE_BYTES, b"\0")}
    assert recover(altered, 2) != number(5)
