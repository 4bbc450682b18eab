"""A plan beside a hospital's limits, line by line: what is asked, what is allowed, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from client.config import SiteConfig
from client.limits import SitePolicy
from client.policy import release_classes_of
from client.review import Review
from common.plan import Plan
from common.reasons import PolicyCode


@dataclass(frozen=True)
class LimitRow:
    """One line.

    Attributes:
        what: In a person's words.
        asked: By the plan.
        limit: Of site.toml, in words.
        codes: The refusals that it stands for.
        broken: Whether one of them is among the verdict's.
    """

    what: str
    asked: str
    limit: str
    codes: tuple[PolicyCode, ...]
    broken: bool = False


def limit_rows(review: Review, config: SiteConfig) -> tuple[LimitRow, ...]:
    """Every limit of the policy, in the order of site.toml; together they stand for every code but the approval's.

    Args:
        review: The plan.
        config: The hospital's settings.
    """
    plan, policy, broken = review.signed.plan, config.policy, {reason.code for reason in review.verdict.reasons}
    rows = (
        *_who(review, config),
        *_privacy(review, plan, policy),
        *_company(plan, policy),
        *_model(plan, policy),
    )
    return tuple(
        LimitRow(row.what, row.asked, row.limit, row.codes, broken=not broken.isdisjoint(row.codes)) for row in rows
    )


def _who(review: Review, config: SiteConfig) -> Iterable[LimitRow]:
    signed, policy = review.signed, config.policy
    named = "yes" if config.name in signed.plan.roster else "no"
    yield LimitRow("roster names this site", named, f"{config.name}, with its key", ("not-in-roster",))
    signers = "the accepted one" if policy.coordinators is None else f"{len(policy.coordinators)} listed"
    yield LimitRow("signed by", f"{signed.coordinator[:12]}…", signers, ("other-coordinator",))
    span = f"{_day(signed.issued)} to {_day(signed.valid_until)}"
    codes: tuple[PolicyCode, ...] = ("plan-expired", "plan-not-yet-valid", "validity-too-long")
    yield LimitRow("valid", span, f"at most {policy.longest_validity_days} days ahead", codes)
    last = "no last day" if policy.expires is None else f"until {policy.expires}"
    yield LimitRow("this policy", "is in force", last, ("policy-expired",))


def _privacy(review: Review, plan: Plan, policy: SitePolicy) -> Iterable[LimitRow]:
    terms = plan.privacy
    yield LimitRow("unit that is hidden", terms.unit, _listed(policy.units), ("other-unit",))
    cost = "unknown" if review.epsilon is None else f"{review.epsilon:,.2f}"
    yield LimitRow(
        "ε of the run", cost, f"at most {policy.most_epsilon:g}", ("epsilon-too-high", "impossible-mechanism")
    )
    yield LimitRow("δ", f"{terms.delta:g}", f"at most {policy.most_delta:g}", ("delta-too-high",))
    floor = getattr(policy.noise_floor, terms.unit)
    yield LimitRow("noise σ", f"{terms.noise_multiplier:.4g}", f"at least {floor:g}", ("too-little-noise",))
    rate = f"at most {policy.most_sampling_rate:g}"
    yield LimitRow("sampling rate q", f"{terms.sampling_rate:g}", rate, ("sampling-rate-too-high",))
    yield LimitRow("rounds", f"{plan.rounds:,}", f"at most {policy.most_rounds:,}", ("too-many-rounds",))
    steps = f"at most {policy.most_local_steps:,}"
    yield LimitRow("local steps a round", f"{plan.local_steps:,}", steps, ("too-many-local-steps",))


def _company(plan: Plan, policy: SitePolicy) -> Iterable[LimitRow]:
    yield LimitRow("mode", plan.mode, _listed(policy.modes), ("other-mode",))
    masked = "required" if policy.masked_only else "not required"
    yield LimitRow("readable in the sum only", "yes" if plan.masked else "no", masked, ("not-masked",))
    yield LimitRow("hospitals n", str(plan.sites), f"at least {policy.least_sites}", ("too-few-sites",))
    smallest = max(plan.minimum_sites, plan.parameters.threshold) if plan.masked else plan.minimum_sites
    yield LimitRow("smallest cohort", str(smallest), f"at least {policy.least_cohort}", ("cohort-too-small",))
    threshold, colluders = (plan.parameters.threshold, plan.parameters.colluders) if plan.masked else ("–", "–")
    yield LimitRow("threshold t", str(threshold), f"at least {policy.least_threshold}", ("threshold-too-low",))
    yield LimitRow("colluders c", str(colluders), f"at least {policy.least_colluders}", ("too-few-colluders",))
    share = f"{plan.noise_shares / plan.sites:.2f}" if plan.mode == "distributed" else "–"
    yield LimitRow("honest share", share, f"at most {policy.most_honest_share:g}", ("honest-share-too-high",))


def _model(plan: Plan, policy: SitePolicy) -> Iterable[LimitRow]:
    bases = "any that is approved" if policy.bases is None else _listed(policy.bases)
    yield LimitRow("base model", f"{plan.base.name} {plan.base.digest[:12]}…", bases, ("other-base",))
    place = "must be here" if policy.base_must_be_local else "may be sent"
    yield LimitRow("base model's files", f"{len(plan.base.files)}", place, ("base-not-local",))
    yield LimitRow("task", f"{plan.task.kind}: {_listed(plan.task.labels)}", _listed(policy.tasks), ("other-task",))
    yield LimitRow("adapter", plan.adapter.method, _listed(policy.methods), ("other-method",))
    targets = _listed(plan.adapter.targets) if plan.adapter.method in {"lora", "lora-b"} else "–"
    yield LimitRow("in the modules", targets, _listed(policy.targets), ("other-targets",))
    most = "no limit" if policy.most_trained_values is None else f"at most {policy.most_trained_values:,}"
    yield LimitRow("trained values", "counted with the base", most, ("too-many-trained-values",))
    yield LimitRow("judged on", "public-set", _listed(policy.evaluations), ("other-evaluation",))
    leaving = _listed(sorted(release_classes_of(plan)))
    yield LimitRow("what leaves", leaving, _listed(policy.releases), ("other-release",))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
