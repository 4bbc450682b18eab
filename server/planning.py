"""From the plan that a person wrote to the one that is signed: the noise calibrated, the sites and the base named."""

from __future__ import annotations

from collections.abc import Mapping

from common.config import parse_config
from common.errors import ConfigError, Problem
from common.findings import counted
from common.plan import BaseIdentity, Plan, PlanDraft, PrivacyTerms, SecureAggregationConfig
from common.privacy.calibrate import noise_for
from common.privacy.mechanism import mechanism_of
from common.secagg.parameters import FEWEST_SITES


def finish_plan(draft: PlanDraft, sites: int, base: BaseIdentity, roster: Mapping[str, str]) -> Plan:
    """Turn a draft into a plan: calibrate the noise, and name the sites and the base's digests.

    Args:
        draft: The plan as a person wrote it.
        sites: n.
        base: Name and digests of the base.
        roster: Public key of each site, by name; may be empty where nothing is masked and nobody checks it.

    Raises:
        ConfigError: When secure aggregation cannot work with so many sites, or no noise reaches the target ε.
    """
    if draft.masked:
        _check_sites(draft, sites)
    sections = draft.model_dump()
    privacy = sections.pop("privacy")
    target, noise = privacy.pop("epsilon"), privacy.pop("noise_multiplier")
    if noise is None:
        noise = _calibrated(draft, sites, target)
    terms = PrivacyTerms(**privacy, noise_multiplier=noise)
    plan = parse_config(
        Plan, {**sections, "privacy": terms, "sites": sites, "roster": dict(roster), "base": base}, "the plan"
    )
    mechanism_of(plan)
    return plan


def _check_sites(draft: PlanDraft, sites: int) -> None:
    """Say in a draft's own words what secure aggregation misses, before anything is calibrated for it."""
    terms = draft.secure_aggregation
    faults = terms.parameters(sites).problems()
    if faults:
        rule, hint = "; ".join(faults), _fitting(terms, sites)
        problem = Problem("secure_aggregation", rule, hint=hint)
        raise ConfigError(f"the plan does not fit {counted(sites, 'hospital')}", (problem,))


def _fitting(terms: SecureAggregationConfig, sites: int) -> str:
    """What would fit so many sites."""
    if sites < FEWEST_SITES:
        return 'use more hospitals, or mode = "per-site" with secure_aggregation.masked = false'
    colluders = terms.tolerated_colluders
    most = max(0, -(-(sites - colluders) // 2) - 1)
    hospitals, disloyal = counted(sites, "hospital"), counted(colluders, "colluder")
    hint = f"with {hospitals} and {disloyal}, tolerated_dropouts may be at most {most}"
    return f"{hint}; leave threshold out" if terms.threshold is not None else hint


def _calibrated(draft: PlanDraft, sites: int, target: float) -> float:
    if draft.mode == "per-site":
        return noise_for(target, draft.privacy, draft.steps)
    shares = draft.secure_aggregation.parameters(sites).noise_shares
    return noise_for(target, draft.privacy, draft.steps, noise="skellam", noise_shares=shares)
