"""Shamir's secret sharing of 32-byte secrets over the integers modulo 2^256 + 297.

No library fits: those that are kept well share 16-byte secrets, or draw their own coefficients, while a site that was
killed must deal the same shares again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.errors import ProtocolError

PRIME = (1 << 256) + 297
"""The smallest prime above 2^256, so that every 32-byte secret is a field element."""

SECRET_BYTES = 32
SHARE_BYTES = 33


def deal(secret: bytes, coefficients: Sequence[bytes], points: Sequence[int]) -> list[bytes]:
    """Shares of a secret: values of the polynomial `secret + c1 x + c2 x² + …` at the points.

    Guarantees:
        As many shares as there are coefficients say nothing about the secret; one more gives it back. The coefficients
        miss 297 of the field's 2^256 + 297 elements, a statistical distance below 2^-240.

    Args:
        secret: 32 bytes.
        coefficients: t - 1 of 32 bytes each, uniform, secret, and used for no other secret.
        points: Where the holders stand, each from 1 to PRIME - 1, all different.

    Returns:
        One share of 33 bytes a point.

    Raises:
        ValueError: When a length is wrong or a point stands twice, or at 0, where the secret is.

    Source: Shamir 1979, "How to share a secret".
    """
    if any(len(number) != SECRET_BYTES for number in (secret, *coefficients)):
        raise ValueError(f"secret and coefficients have {SECRET_BYTES} bytes each")
    if len(set(points)) != len(points) or not all(0 < point < PRIME for point in points):
        raise ValueError("points are different and not 0")
    polynomial = [int.from_bytes(number, "big") for number in (*reversed(coefficients), secret)]
    return [_value_at(polynomial, point).to_bytes(SHARE_BYTES, "big") for point in points]


def recover(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret behind shares by point; exactly `threshold` of them are used, those at the lowest points.

    Edge cases:
        Wrong shares give a wrong secret, or none; what proves a secret right is its commitment.

    Raises:
        ProtocolError: When there are too few shares, one is no field element, or what they give is no 32-byte secret.
    """
    if len(shares) < threshold:
        raise ProtocolError(f"a secret needs {threshold} shares, and there are {len(shares)}")
    chosen = sorted(shares)[:threshold]
    values = [int.from_bytes(shares[point], "big") for point in chosen]
    if any(len(shares[point]) != SHARE_BYTES for point in chosen) or any(value >= PRIME for value in values):
        raise ProtocolError(f"a share must have {SHARE_BYTES} bytes and lie below 2^256 + 297")
    secret = sum(weight * value for weight, value in zip(_weights_at_zero(chosen), values, strict=True)) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ProtocolError("the shares do not belong to one 32-byte secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value_at(polynomial: Sequence[int], point: int) -> int:
    """Horner's rule, highest coefficient first."""
    value = 0
    for coefficient in polynomial:
        value = (value * point + coefficient) % PRIME
    return value


def _weights_at_zero(points: Sequence[int]) -> list[int]:
    """Lagrange's weights: the polynomial's value at 0 is their sum with its values at the points."""
    weights = []
    for own in points:
        above = below = 1
        for other in points:
            if other != own:
                above = above * other % PRIME
                below = below * (other - own) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights
