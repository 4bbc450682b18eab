"""Masks of one round: what a site adds to its numbers, and what the coordinator takes off the sum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from common.canonical import digest
from common.secagg import prg
from common.secagg.keys import agree, derive

Ring = npt.NDArray[np.uint32]
SignedSeed = tuple[bytes, int]
"""A mask's seed, and 1 to add the mask or -1 to take it off."""


def model_digest(weights: npt.NDArray[np.float32], basis: npt.NDArray[np.float32]) -> str:
    """SHA-256 of the global model that a round starts from, as 64 hexadecimal digits."""
    hasher = hashlib.sha256(f"{weights.size} {basis.size} ".encode())
    for values in (weights, basis):
        hasher.update(values.astype("<f4", copy=False).tobytes())
    return hasher.hexdigest()


def round_context(roster_digest: str, cohort: Sequence[str], round_number: int, model: str) -> str:
    """What every mask and every signature of a round is bound to, as 64 hexadecimal digits.

    Guarantees:
        Sites that were told another roster, cohort, round or model derive unrelated masks, so that nothing can be read
        from their sum, and do not count each other's consent.

    Args:
        roster_digest: Of the session's keys; it covers plan and session.
        cohort: Sites whose masks are in the round, in order of name.
        round_number: From 1.
        model: As `model_digest` gives it.
    """
    return digest(["cloister secure aggregation round", 1, roster_digest, list(cohort), round_number, model])


def pairwise_seed(own: X25519PrivateKey, other: bytes, sites: tuple[str, str], context: str) -> bytes:
    """The seed that two sites share in one round, from the mask key of one and the public mask key of the other.

    Args:
        own: A mask key of the round.
        other: The other's public mask key of the round.
        sites: Both names, in any order.
        context: As `round_context` gives it.
    """
    return agree(own, other, "pairwise mask", *sorted(sites), context)


def pairwise_sign(site: str, peer: str) -> int:
    """1 at the site whose name comes first, -1 at the other, so that the two masks cancel."""
    return 1 if site < peer else -1


def self_mask_seed(seed: bytes, site: str, context: str) -> bytes:
    """The seed of a site's own mask in one round."""
    return derive(seed, "self mask", site, context)


def add_masks(values: Ring, seeds: Iterable[SignedSeed]) -> Ring:
    """Values with each mask added or taken off, modulo 2^32, `[d]`; the values themselves stay.

    Edge cases:
        NumPy's unsigned integers wrap round without a warning: that is the ring's arithmetic.
    """
    total = values.copy()
    for seed, sign in seeds:
        mask = prg.mask(seed, len(total))
        if sign > 0:
            np.add(total, mask, out=total)
        else:
            np.subtract(total, mask, out=total)
    return total
