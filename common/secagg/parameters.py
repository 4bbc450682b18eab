"""The public numbers of secure aggregation, which combinations are safe, and how many neighbours a site needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import comb

FEWEST_SITES = 3
"""With two sites, the sum and one's own input give the other's."""

PRIVACY_BITS = 128
"""A random graph fails to protect somebody with probability at most 2^-128.

A colluder can try keys until the graph suits, without asking anybody; 2^64 attempts, each a hash of all keys and the
placing of all sites, leave 2^-64.
"""

LEAST_DEGREE = 32
"""Every site has at least so many neighbours, or all others: that costs milliseconds, and leaves room for more
colluders than a plan says."""

LIVENESS_BITS = 20
"""A graph on which d drop-outs end a round, although enough sites are left, has probability at most 2^-20."""


@dataclass(frozen=True)
class Neighbourhood:
    """How the sites are joined.

    Args:
        degree: k, even or n - 1: sites that each site shares masks with and deals shares to.
        share_threshold: Shares of one secret that give it back, out of k + 1 (a site keeps one of its own).
    """

    degree: int
    share_threshold: int


@dataclass(frozen=True)
class Parameters:
    """n, d, c and t of a plan.

    Guarantees (for a session whose cohort is within the plan's roster, with at most c colluding sites):
        A sum that comes out holds the inputs of at least t - c >= n - d - c honest sites. Two survivor sets can never
        both be signed by t sites, because two sets of t among n sites share at least 2t - n > c, hence an honest one,
        and an honest site signs once a round.

    Args:
        sites: n.
        dropouts: d, sites that may be missing at the end of a round.
        colluders: c, sites that may tell the coordinator all they know.
        threshold: t, sites that must agree on a survivor set and be in it.

    Source: Bonawitz et al. 2017, section 6.2 (threshold against a coordinator that lies); DESIGN section 6.
    """

    sites: int
    dropouts: int
    colluders: int
    threshold: int

    def problems(self) -> list[str]:
        """Every rule that is broken, each as one sentence; empty for safe parameters."""
        n, d, c, t = self.sites, self.dropouts, self.colluders, self.threshold
        if n < FEWEST_SITES:
            return [f"secure aggregation needs at least {FEWEST_SITES} sites, and there are {n}"]
        rules = (
            (
                self.noise_shares < 1,
                f"`tolerated_dropouts` ({d}) and `tolerated_colluders` ({c}) leave no honest noise among {n} sites",
            ),
            (
                not n - d <= t <= n,
                f"`threshold` ({t}) must be from sites - tolerated_dropouts ({n - d}) to sites ({n}), "
                "because the noise is shared out among so many",
            ),
            (
                2 * t <= n + c,
                f"twice `threshold` ({t}) must be above sites + tolerated_colluders ({n + c}), "
                "or two survivor sets could be signed in one round",
            ),
        )
        return [sentence for broken, sentence in rules if broken]

    @property
    def noise_shares(self) -> int:
        """n - d - c: honest sites in every sum, whose shares of the noise are accounted; below 1 none is left."""
        return self.sites - self.dropouts - self.colluders

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Degree and share threshold of the graph; see `find_neighbourhood`."""
        return find_neighbourhood(self.sites, self.dropouts, self.colluders, self.threshold)


@lru_cache(maxsize=64)
def find_neighbourhood(sites: int, dropouts: int, colluders: int, threshold: int) -> Neighbourhood:
    """The smallest even degree from `LEAST_DEGREE` on at which a random ring graph is safe, or else the complete graph.

    Of the share thresholds that are safe at that degree the largest is taken.

    The sites stand in a ring in random order, and each is joined to the k/2 next on either side. Colluders are chosen
    before the order is drawn; who is missing is for the coordinator to say, who knows the order by then. The
    probability is at most 2^-`PRIVACY_BITS` that

    * some site has `share_threshold` or more colluders among its k neighbours (they could open what it deals): at most
      n times the hypergeometric tail at one site; or
    * the coordinator can cut the honest survivors into parts (each part's sum would show), whichever d sites it calls
      missing. A ring falls apart only where k/2 places in a row are empty at two different stretches, so at least
      k - d colluders would have to stand in some two stretches: at most n (n - 1) / 2 times the tail at one pair.
      Where k > d + c this cannot happen at all; where k <= d it always can, and no such degree is taken;

    and at most 2^-`LIVENESS_BITS` that d accidental drop-outs leave some site's secrets with too few shares.

    Edge cases:
        The complete graph needs no probability: its shares are n, and its share threshold is `threshold`.

    Args:
        sites: n.
        dropouts: d.
        colluders: c.
        threshold: t, the share threshold of the complete graph.

    Source: Bell, Bonawitz, Gascón, Lepoint & Raykova 2020, section 3.2 (Harary graph on a random order); the bounds
        here are exact tails, not their closed forms, and hold for drop-outs that the coordinator picks.
    """
    for degree in range(LEAST_DEGREE, sites - 1, 2):
        if _can_be_cut(sites, dropouts, colluders, degree):
            continue
        safe = max(_safe_thresholds(sites, dropouts, colluders, degree), default=None)
        if safe is not None:
            return Neighbourhood(degree, safe)
    return Neighbourhood(sites - 1, threshold)


def _safe_thresholds(sites: int, dropouts: int, colluders: int, degree: int) -> Iterator[int]:
    """Share thresholds that colluders miss and survivors reach."""
    for threshold in range(2, degree + 1):
        opened = _tail(sites - 1, colluders, degree, threshold)
        # A site that dropped out holds none of its own shares, so k - threshold + 1 missing neighbours are too many.
        lost = _tail(sites - 1, dropouts, degree, degree - threshold + 1)
        if _below(sites, opened, PRIVACY_BITS) and _below(sites, lost, LIVENESS_BITS):
            yield threshold


def _can_be_cut(sites: int, dropouts: int, colluders: int, degree: int) -> bool:
    """Whether two stretches of k/2 places that d drop-outs of the coordinator's choice can empty are too likely."""
    pairs = comb(sites, 2)
    return not _below(pairs, _tail(sites, colluders, degree, max(0, degree - dropouts)), PRIVACY_BITS)


def _tail(population: int, marked: int, drawn: int, least: int) -> tuple[int, int]:
    """P(at least `least` of `drawn` are among the `marked`) as an exact fraction: numerator and denominator."""
    ways = sum(comb(marked, hit) * comb(population - marked, drawn - hit) for hit in range(least, drawn + 1))
    return ways, comb(population, drawn)


def _below(places: int, probability: tuple[int, int], bits: int) -> bool:
    ways, all_ways = probability
    return places * ways << bits <= all_ways
