"""What a finished run has to tell, and the same as plain JSON values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.plan import Plan
from server.run import RunOutcome
from server.state import Evaluation, as_json

FORMAT_VERSION = 1
NEIGHBOURS = "add/remove"

NOISES = {"distributed": "skellam", "per-site": "gaussian"}
ACCOUNTANTS = {
    "distributed": "Rényi divergences of Poisson-sampled Skellam noise",
    "per-site": "privacy loss distributions, or Rényi divergences where δ is very small",
}


@dataclass(frozen=True)
class SitePrivacy:
    """What a run cost one site.

    Args:
        site: Its name.
        steps: Noised steps in its book, whether or not their outcome arrived.
        epsilon: ε of the whole plan at its δ, also after an early stop (which depends on results).
        epsilon_by_round: ε after each round; values for rounds that a run stopped short of are not shown.
    """

    site: str
    steps: int
    epsilon: float
    epsilon_by_round: tuple[float, ...]


@dataclass(frozen=True)
class Judged:
    """Figures of the result on one public set, and how many rows of each label that has."""

    evaluation: Evaluation
    rows_by_label: Mapping[str, int]


@dataclass(frozen=True)
class RunReport:
    """Everything that is written about a run.

    None of it depends on a private record but through noised updates, save the metrics named `train_...` that a
    simulation may watch: those are marked in `results.json` as not private.

    Args:
        plan: The plan.
        outcome: What the coordinator got.
        privacy: One entry a site.
        data: One sentence about where the records came from.
        trained_values: d, the number of values that were trained.
        validation: The result on the set that decided about stopping.
        test: The result on the set that decided nothing.
        seconds: Wall-clock time of the run.
        versions: Of the packages that matter.
    """

    plan: Plan
    outcome: RunOutcome
    privacy: tuple[SitePrivacy, ...]
    data: str
    trained_values: int
    validation: Judged | None
    test: Judged | None
    seconds: float
    versions: Mapping[str, str]


def results(report: RunReport) -> dict[str, Any]:
    """The run as plain JSON values, keys in a stable order.

    Edge cases:
        A figure without a finite value is null; so is ε without noise, and `privacy.holds` is then false.
    """
    plan, outcome = report.plan, report.outcome
    return {
        "format_version": FORMAT_VERSION,
        "name": plan.name,
        "plan_digest": plan.digest,
        "mode": plan.mode,
        "task": plan.task.model_dump(mode="json"),
        "base": plan.base.model_dump(mode="json"),
        "adapter": plan.adapter.model_dump(mode="json"),
        "trained_values": report.trained_values,
        "data": report.data,
        "result": {"chosen": outcome.chosen, "round": outcome.chosen_round, "stopped_early": outcome.stopped_early},
        "validation": _judged(report.validation),
        "test": _judged(report.test),
        "privacy": _privacy(report),
        "not_private": _not_private(report),
        "totals": totals(report),
        "rounds": [as_json(summary) for summary in outcome.rounds],
        "versions": dict(sorted(report.versions.items())),
    }


def _not_private(report: RunReport) -> list[str]:
    """Figures that were taken from private rows without noise, for a researcher's eyes; never with real patients."""
    rounds = report.outcome.rounds
    metrics = {name for summary in rounds if summary.validation is not None for name in summary.validation.metrics}
    return sorted(f"rounds.validation.metrics.{name}" for name in metrics if name.startswith("train_"))


def _judged(judged: Judged | None) -> dict[str, Any] | None:
    if judged is None:
        return None
    counts = dict(judged.rows_by_label)
    return {**as_json(judged.evaluation), "rows": sum(counts.values()), "rows_by_label": counts}


def _privacy(report: RunReport) -> dict[str, Any]:
    return {
        "holds": is_private(report),
        "neighbours": NEIGHBOURS,
        **report.plan.privacy.model_dump(mode="json"),
        "noise": NOISES[report.plan.mode],
        "noise_excess": noise_excess(report.plan),
        "accountant": ACCOUNTANTS[report.plan.mode],
        "secure_aggregation": _secure_aggregation(report.plan),
        "sites": [
            {
                "site": site.site,
                "steps": site.steps,
                "epsilon": _finite(site.epsilon),
                "epsilon_by_round": [_finite(value) for value in spent(report, site)],
            }
            for site in report.privacy
        ],
    }


def _secure_aggregation(plan: Plan) -> dict[str, int] | None:
    """n, d, c and t; None where the coordinator could read each site's updates."""
    if not plan.masked:
        return None
    terms = plan.parameters
    return {
        "sites": terms.sites,
        "tolerated_dropouts": terms.dropouts,
        "tolerated_colluders": terms.colluders,
        "threshold": terms.threshold,
    }


def spent(report: RunReport, site: SitePrivacy) -> tuple[float, ...]:
    """ε after each round that was run."""
    return site.epsilon_by_round[: len(report.outcome.rounds)]


def noise_excess(plan: Plan) -> float:
    """Noise in the sum when nobody is missing, over the noise that ε is accounted for: √(n / (n - d - c)), or 1."""
    return math.sqrt(plan.sites / plan.noise_shares) if plan.mode == "distributed" else 1.0


def is_private(report: RunReport) -> bool:
    """Whether any guarantee holds: without noise none does."""
    return all(math.isfinite(site.epsilon) for site in report.privacy)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def totals(report: RunReport) -> dict[str, Any]:
    """Sums over the rounds of a run."""
    rounds = report.outcome.rounds
    return {
        "rounds": len(rounds),
        "rounds_planned": report.plan.rounds,
        "rounds_applied": sum(summary.applied for summary in rounds),
        "aborts": dict(sorted(Counter(summary.abort for summary in rounds if summary.abort).items())),
        "seconds": report.seconds,
        "bytes_out": sum(summary.bytes_out for summary in rounds),
        "bytes_in": sum(summary.bytes_in for summary in rounds),
    }
