"""Who shares masks and secrets with whom."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

from common.canonical import canonical_bytes


def neighbours(site: str, roster: Sequence[str], present: Iterable[str], degree: int, seed: str) -> tuple[str, ...]:
    """The sites that a site is joined to, in order of name.

    The roster's sites stand in a ring, ordered by a hash of seed and name, and each is joined to the k/2 next on either
    side; those that are not present fall out. Every party computes the same ring, on any machine.

    Edge cases:
        A degree of n - 1 joins everybody. Being joined is mutual.

    Args:
        site: Whose neighbours.
        roster: All sites of the plan.
        present: Those that take part.
        degree: k of `Neighbourhood`.
        seed: Digest of the session's keys: nobody knows it before every key is there.

    Source: Bell et al. 2020, section 3.2.
    """
    ring = _ring(tuple(roster), seed)
    if degree >= len(ring) - 1:
        joined = set(ring)
    else:
        place = ring.index(site)
        joined = {ring[(place + step) % len(ring)] for step in range(-(degree // 2), degree // 2 + 1)}
    return tuple(sorted((joined & set(present)) - {site}))


@lru_cache(maxsize=4)
def _ring(roster: tuple[str, ...], seed: str) -> tuple[str, ...]:
    """The order of the ring; kept, because the coordinator asks for every site's neighbours in turn."""
    return tuple(sorted(roster, key=lambda name: hashlib.sha256(canonical_bytes([seed, name])).digest()))


def points(roster: Iterable[str]) -> dict[str, int]:
    """Where each site stands in the secret sharing: from 1 on, in order of name."""
    return {name: place for place, name in enumerate(sorted(roster), start=1)}
