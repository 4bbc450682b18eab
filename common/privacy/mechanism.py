"""From a plan to its mechanism, in the one place that reads the mode."""

from __future__ import annotations

import math

from common.errors import ConfigError, Problem
from common.plan import Plan
from common.privacy.plan import PrivacyPlan
from common.secagg.fixed_point import largest_sum


def mechanism_of(plan: Plan) -> PrivacyPlan:
    """The mechanism that a plan's sites run and its accountant reads.

    Mode per-site: every site adds all of the noise, Gaussian, to its own steps. Mode distributed: every site adds a
    Skellam share, and n - d - c shares make up the noise that is accounted.

    Raises:
        ConfigError: When a constant is out of range, or a sum over the sites could wrap round modulo 2^32.
    """
    if plan.mode == "per-site":
        return PrivacyPlan.from_terms(plan.privacy, plan.steps)
    mechanism = PrivacyPlan.from_terms(plan.privacy, plan.steps, noise="skellam", noise_shares=plan.noise_shares)
    sum_bound(mechanism, plan.sites)
    return mechanism


def sum_bound(mechanism: PrivacyPlan, sites: int) -> int:
    """The bound to which each site clamps every coordinate of its clipped sum, in grid steps, before it adds noise.

    Guarantees:
        Whatever the sites' records, the total over n sites, noise and all, stays within 32 bits: decoding gives the
        true sum. Clamping costs no privacy (`common.secagg.fixed_point.clamp`). It never touches a step in which all
        units that the divisor stands for, at one site and pulling one coordinate with all their might, are drawn.

    Raises:
        ConfigError: When the bound leaves less room than that.
    """
    bound = largest_sum(sites, mechanism.share_reach)
    needed = mechanism.clip_bound * math.ceil(mechanism.divisor)
    if bound < needed:
        rule = f"leaves each of {sites} sites {max(bound, 0)} steps of the grid for its sum, and it needs {needed}"
        hint = "lower `privacy.grid_bits`"
        problem = Problem("privacy.grid_bits", rule, repr(mechanism.grid_bits), hint)
        raise ConfigError("a sum over the sites could wrap round modulo 2^32", (problem,), hint)
    return bound
