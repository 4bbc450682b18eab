"""One plan in, every reason to refuse it out.

The policy is not a layer of settings that others may write over: the plan is compared with it, and the strictest value
wins. Nothing here reads a file, a clock or a record, so that the same plan always gets the same reasons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from client.limits import Evaluation, SitePolicy
from client.outbox import RELEASE_CLASSES
from common.audit_fields import ReleaseClass
from common.errors import ConfigError
from common.messages import Message, RoundReply
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.mechanism import mechanism_of
from common.reasons import PolicyCode
from common.secagg.messages import Consent, MaskedReply, Reveal, SessionKeys, SessionShares

CLOCK_SKEW = timedelta(minutes=5)
"""A plan may be issued so far in the future: two machines' clocks are never quite the same."""

_MASKED_KINDS: tuple[type[Message], ...] = (SessionKeys, SessionShares, MaskedReply, Consent, Reveal)
_PLAIN_KINDS: tuple[type[Message], ...] = (RoundReply,)

_EVALUATIONS: tuple[Evaluation, ...] = ("public-set",)
"""A plan of format 1 has the coordinator judge the model on public records; it cannot ask for anything else."""


@dataclass(frozen=True)
class PolicyContext:
    """What the policy has to know besides the plan.

    Args:
        site: This site's name.
        identity_public: This site's public key, 64 hexadecimal digits.
        coordinator_public: Who signed the plan; its signature was checked, and it is the pinned coordinator.
        now: The time, with a time zone.
        valid_until: When the signed plan ends, with a time zone.
        approved: Whether a person here approved this very digest.
        base_is_local: Whether all files of the plan's base are here, checked, and put there by this site's people.
        trained_values: d of the plan on its base; None while the base is not here.
        issued: When the plan was signed; None where that is not known.

    Raises:
        ValueError: When a time has no time zone.
    """

    site: str
    identity_public: str
    coordinator_public: str
    now: datetime
    valid_until: datetime
    approved: bool
    base_is_local: bool
    trained_values: int | None = None
    issued: datetime | None = None

    def __post_init__(self) -> None:
        if any(time is not None and time.tzinfo is None for time in (self.now, self.valid_until, self.issued)):
            raise ValueError("the times that a policy compares must have a time zone")


@dataclass(frozen=True)
class Reason:
    """One limit that a plan breaks. The code may travel; the words show the hospital's limits and never do.

    Args:
        code: Which kind of limit.
        rule: The rule as a clause, with the keys of plan and policy.
        asked: What the plan has.
        limit: What the policy has.
        hint: The next step.
    """

    code: PolicyCode
    rule: str
    asked: str
    limit: str
    hint: str

    def __str__(self) -> str:
        return f"{self.rule} (plan: {self.asked}; limit: {self.limit})"


Reasons = Iterator[Reason]


def reasons_to_refuse(plan: Plan, policy: SitePolicy, context: PolicyContext) -> tuple[Reason, ...]:
    """Compare a plan with a hospital's policy.

    Guarantees:
        Every limit that is broken gives its own reason, whatever else is broken; no reason means that none is. A limit
        made stricter never takes a reason away. A value that cannot be compared (NaN, an ε that cannot be worked out)
        breaks its limit. Plan, policy and context decide alone: no file, clock or record is read.

    Edge cases:
        `trained_values` None is let pass only while the base is not here, since it cannot be known before; a limit on
        it is broken by None where the base is local. Ask again with the number before records are touched.
        ε in total is the ledger's.

    Args:
        plan: Parsed, hence consistent in itself.
        policy: This site's.
        context: Who, when, and what is here.
    """
    return (
        *_parties(plan, policy, context),
        *_times(policy, context),
        *_privacy(plan, policy),
        *_cohort(plan, policy),
        *_base(plan, policy, context),
        *_training(plan, policy, context),
        *_leaving(plan, policy),
    )


def _parties(plan: Plan, policy: SitePolicy, context: PolicyContext) -> Reasons:
    """Who asks, and whom."""
    if plan.roster.get(context.site) != context.identity_public:
        named = "another key" if context.site in plan.roster else "no such site"
        hint = "ask the coordinator for a plan whose roster has this site's name and key, as its invitation does"
        yield Reason("not-in-roster", "`roster` must name this site with its key", named, context.site, hint)
    if policy.coordinators is not None:
        yield from _only(
            "other-coordinator", "signer", [context.coordinator_public], "coordinators", policy.coordinators
        )
    if policy.approval_needed and not context.approved:
        hint = "read it with `cloister-site review`, then `cloister-site approve` its digest"
        yield Reason("not-approved", "a person here must approve the plan", "not approved", "approval_needed", hint)


def _times(policy: SitePolicy, context: PolicyContext) -> Reasons:
    now, end, issued = context.now, context.valid_until, context.issued
    if now > end:
        hint = "ask the coordinator to sign the plan again"
        yield Reason("plan-expired", "the signed plan must still be valid", f"until {_day(end)}", _day(now), hint)
    if issued is not None and issued > now + CLOCK_SKEW:
        hint = "compare this machine's clock with the coordinator's"
        yield Reason("plan-not-yet-valid", "the plan must not be of the future", _day(issued), _day(now), hint)
    days = (end - now) / timedelta(days=1)
    yield from _at_most("validity-too-long", "valid_until", days, "longest_validity_days", policy.longest_validity_days)
    if policy.expires is not None and now.astimezone(UTC).date() > policy.expires:
        hint = "look through the policy, then move `policy.expires` in site.toml"
        yield Reason("policy-expired", "the policy must not have expired", _day(now), str(policy.expires), hint)


def _privacy(plan: Plan, policy: SitePolicy) -> Reasons:
    terms = plan.privacy
    yield from _only("other-unit", "privacy.unit", [terms.unit], "units", policy.units)
    floor = getattr(policy.noise_floor, terms.unit)
    noise = terms.noise_multiplier
    yield from _at_least("too-little-noise", "privacy.noise_multiplier", noise, f"noise_floor.{terms.unit}", floor)
    yield from _at_most("delta-too-high", "privacy.delta", terms.delta, "most_delta", policy.most_delta)
    rate = terms.sampling_rate
    limit = policy.most_sampling_rate
    yield from _at_most("sampling-rate-too-high", "privacy.sampling_rate", rate, "most_sampling_rate", limit)
    yield from _cost(plan, policy)


def _cost(plan: Plan, policy: SitePolicy) -> Reasons:
    try:
        cost = epsilon(mechanism_of(plan))
    except (ConfigError, ArithmeticError, ValueError) as error:  # the last two: numbers at the edge of a float64
        hint = "ask the coordinator for a plan whose constants `cloister-coordinator plan check` accepts"
        asked = error.message if isinstance(error, ConfigError) else "constants that no accountant takes"
        yield Reason("impossible-mechanism", "ε of the run must be known", asked, "a number", hint)
        return
    yield from _at_most("epsilon-too-high", "ε of the run", cost, "most_epsilon", policy.most_epsilon)


def _cohort(plan: Plan, policy: SitePolicy) -> Reasons:
    yield from _at_least("too-few-sites", "sites", plan.sites, "least_sites", policy.least_sites)
    smallest = max(plan.minimum_sites, plan.parameters.threshold) if plan.masked else plan.minimum_sites
    yield from _at_least("cohort-too-small", "minimum_sites", smallest, "least_cohort", policy.least_cohort)
    if plan.masked:
        terms, section = plan.parameters, "secure_aggregation"
        key = f"{section}.threshold"
        yield from _at_least("threshold-too-low", key, terms.threshold, "least_threshold", policy.least_threshold)
        key = f"{section}.tolerated_colluders"
        yield from _at_least("too-few-colluders", key, terms.colluders, "least_colluders", policy.least_colluders)
    if plan.mode == "distributed":
        share, limit = plan.noise_shares / plan.sites, policy.most_honest_share
        yield from _at_most("honest-share-too-high", "(n - d - c) / n", share, "most_honest_share", limit)


def _base(plan: Plan, policy: SitePolicy, context: PolicyContext) -> Reasons:
    name, digest = plan.base.name, plan.base.digest
    if policy.bases is not None and policy.bases.get(name) != digest:
        hint = f'add "{name}" = "{digest}" to [policy.bases] in site.toml if this hospital agrees'
        known = ", ".join(policy.bases) or "none"
        yield Reason("other-base", "`base` must be in `policy.bases`", f"{name} {digest}", known, hint)
    if policy.base_must_be_local and not context.base_is_local:
        hint = "get the base model on a way that this hospital trusts, and put it into the site's folder of bases"
        yield Reason("base-not-local", "`base` must be here", f"{name} is not here", "base_must_be_local", hint)


def _training(plan: Plan, policy: SitePolicy, context: PolicyContext) -> Reasons:
    yield from _only("other-task", "task.kind", [plan.task.kind], "tasks", policy.tasks)
    method = plan.adapter.method
    yield from _only("other-method", "adapter.method", [method], "methods", policy.methods)
    if method in {"lora", "lora-b"}:
        targets = plan.adapter.targets
        fitting = [name for name in targets if any(fnmatchcase(name, pattern) for pattern in policy.targets)]
        yield from _only("other-targets", "adapter.targets", targets, "targets", fitting, policy.targets)
    most, values = policy.most_trained_values, context.trained_values
    if most is not None and (values is not None or context.base_is_local):
        count = math.nan if values is None else values
        yield from _at_most("too-many-trained-values", "trained values", count, "most_trained_values", most)
    yield from _at_most("too-many-rounds", "rounds", plan.rounds, "most_rounds", policy.most_rounds)
    steps = plan.local_steps
    yield from _at_most("too-many-local-steps", "local_steps", steps, "most_local_steps", policy.most_local_steps)


def _leaving(plan: Plan, policy: SitePolicy) -> Reasons:
    yield from _only("other-mode", "mode", [plan.mode], "modes", policy.modes)
    if policy.masked_only and not plan.masked:
        hint = "ask the coordinator for `secure_aggregation.masked = true`, or set `policy.masked_only = false`"
        yield Reason("not-masked", "`secure_aggregation.masked` must be true", "false", "masked_only", hint)
    yield from _only("other-evaluation", "evaluation", _EVALUATIONS, "evaluations", policy.evaluations)
    yield from _only("other-release", "messages", sorted(release_classes_of(plan)), "releases", policy.releases)


def release_classes_of(plan: Plan) -> frozenset[ReleaseClass]:
    """Classes of what leaves a site in a run of this plan, from the exit's own list."""
    kinds = _MASKED_KINDS if plan.masked else _PLAIN_KINDS
    return frozenset(release for kind in kinds for release in RELEASE_CLASSES[kind].values())


# --- comparisons; written so that what cannot be compared, such as NaN, breaks the limit ---


def _at_least(code: PolicyCode, key: str, asked: float, setting: str, limit: float) -> Reasons:
    if not asked >= limit:
        yield _broken(code, f"`{key}` must be at least `policy.{setting}`", asked, limit)


def _at_most(code: PolicyCode, key: str, asked: float, setting: str, limit: float) -> Reasons:
    if not asked <= limit:
        yield _broken(code, f"`{key}` must be at most `policy.{setting}`", asked, limit)


def _only(
    code: PolicyCode,
    key: str,
    asked: Iterable[str],
    setting: str,
    allowed: Iterable[str],
    shown: Iterable[str] | None = None,
) -> Reasons:
    """One reason for all values that are not allowed; `shown` is the limit as site.toml spells it."""
    strange = [value for value in asked if value not in allowed]
    if strange:
        limit = ", ".join(allowed if shown is None else shown) or "none"
        yield _broken(code, f"`{key}` must be among `policy.{setting}`", ", ".join(strange), limit)


def _broken(code: PolicyCode, rule: str, asked: float | str, limit: float | str) -> Reason:
    hint = "ask the coordinator for another plan, or change the policy in site.toml if this hospital agrees"
    return Reason(code, rule, _shown(asked), _shown(limit), hint)


def _shown(value: float | str) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _day(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
