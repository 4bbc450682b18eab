"""Deal the patients of one data set out to virtual hospitals."""

from __future__ import annotations

import math

import numpy as np

from common.errors import ConfigError
from common.randomness import public_generator
from common.records.records import Integers, Records


def partition_patients(records: Records, sites: int, seed: int, skew: float | None = None) -> list[Records]:
    """Give every patient, with all rows, to one site.

    Guarantees:
        Every row is at exactly one site, no patient is at two, every site has a patient, rows keep their order, and
        the same arguments give the same sites.
    Edge cases:
        Without skew the sites' numbers of patients differ by one at most. With a very small skew a site may have a
        single patient: each gets one first, and the rest follow the Dirichlet shares.

    Args:
        records: The rows of all sites.
        sites: Number of sites.
        seed: Public seed.
        skew: None deals at random. Otherwise each kind of patient (patients with most of the same label, measured
            against the whole data set) is spread over the sites by shares from Dirichlet(skew): 100 is nearly even,
            1 is uneven, 0.1 leaves most of a kind at one site.

    Raises:
        ConfigError: For less than one site, more sites than patients, or a skew that is not positive.

    Source: Dirichlet partitions, Hsu, Qi & Brown 2019.
    """
    if not 1 <= sites <= records.patient_count:
        problem = f"{records.patient_count} patients cannot be dealt out to {sites} sites"
        raise ConfigError(problem, hint="ask for at least one site and no more sites than patients")
    if skew is not None and not (skew > 0 and math.isfinite(skew)):
        raise ConfigError(f"the skew must be a positive number, not {skew}", hint="leave it out for an even partition")
    generator = public_generator(seed, "partition", sites)
    order = generator.permutation(records.patient_count)
    site_of = np.empty(records.patient_count, dtype=np.int64)
    if skew is None:
        site_of[order] = np.arange(len(order)) % sites
    else:
        site_of[order[:sites]] = np.arange(sites)
        site_of[order[sites:]] = _skewed_sites(_patient_kinds(records)[order[sites:]], sites, skew, generator)
    row_sites = site_of[records.patients]
    return [records.select(np.flatnonzero(row_sites == site)) for site in range(sites)]


def _skewed_sites(kinds: Integers, sites: int, skew: float, generator: np.random.Generator) -> Integers:
    """A site for each patient, shape `[P]`: one draw of Dirichlet shares for each kind of patient."""
    chosen = np.empty(len(kinds), dtype=np.int64)
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        shares = generator.dirichlet(np.full(sites, skew))
        # Cutting at rounded cumulative shares keeps to the shares more closely than drawing each patient's site.
        ends = np.rint(np.cumsum(shares) * len(members))
        chosen[members] = np.searchsorted(ends, np.arange(len(members)), side="right").clip(max=sites - 1)
    return chosen


def _patient_kinds(records: Records) -> Integers:
    """The label that each patient has most of, measured against its share in the whole data set; shape `[P]`."""
    counts = np.zeros((records.patient_count, int(records.labels.max()) + 1))
    np.add.at(counts, (records.patients, records.labels), 1)
    mixes = counts / counts.sum(axis=1, keepdims=True)
    overall = counts.sum(axis=0) / counts.sum()
    kinds: Integers = np.argmax(mixes / np.where(overall > 0, overall, 1), axis=1)
    return kinds
