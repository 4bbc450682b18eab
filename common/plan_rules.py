"""Combinations of a plan's settings that no run can satisfy, each as one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.fields import MOST_NAMES
from common.identity import is_sound

if TYPE_CHECKING:
    from common.plan import Plan, PlanSections

Rules = tuple[tuple[bool, str], ...]

MOST_STEPS = 1_000_000
"""Far beyond any fine-tune; a bound keeps the accountant's work bounded."""


def impossible_sections(plan: PlanSections) -> list[str]:
    """What is wrong with a draft or a plan, whatever the number of sites."""
    return [sentence for broken, sentence in (*_training_rules(plan), *_mode_rules(plan)) if broken]


def _training_rules(plan: PlanSections) -> Rules:
    adapter, server = plan.adapter, plan.server
    refreshed = bool(adapter.svd_refresh_rounds)
    moments = plan.mode == "distributed" or server.optimizer != "fedavg" or bool(server.momentum)
    return (
        (
            adapter.head_rounds >= plan.rounds and adapter.method != "head",
            "`adapter.head_rounds` must be smaller than `rounds`, or the adapter is never trained",
        ),
        (
            plan.optimizer.warmup_steps >= plan.steps,
            "`optimizer.warmup_steps` must be smaller than `rounds` x `local_steps`",
        ),
        (plan.steps > MOST_STEPS, f"`rounds` x `local_steps` must be at most {MOST_STEPS:,}"),
        (
            refreshed and adapter.method not in {"lora", "lora-b"},
            "`adapter.svd_refresh_rounds` needs method lora or lora-b",
        ),
        (
            refreshed and bool(server.average_rounds),
            "`server.average_rounds` cannot average factors that `adapter.svd_refresh_rounds` changes",
        ),
        (
            refreshed and moments,
            "`adapter.svd_refresh_rounds` needs mode per-site and server.optimizer fedavg without momentum: "
            "moments have no meaning in new factors",
        ),
        (
            len(plan.task.labels) == 2 and plan.task.positive_label is None,
            "`task.positive_label` is needed for two labels",
        ),
    )


def _mode_rules(plan: PlanSections) -> Rules:
    distributed = plan.mode == "distributed"
    ordinary = type(plan.server)(average_rounds=plan.server.average_rounds)
    return (
        (
            distributed and plan.local_steps != 1,
            "`local_steps` must be 1 in mode distributed: a round is one DP-SGD step of the union",
        ),
        (
            distributed and not plan.masked,
            "`secure_aggregation.masked` must be true in mode distributed: "
            "one site's share of the noise protects nobody",
        ),
        (
            distributed and plan.server != ordinary,
            "`server` is for mode per-site, except average_rounds; "
            "in mode distributed `optimizer` turns the sum into a step",
        ),
    )


def impossible_sites(plan: Plan) -> list[str]:
    """What can be told only when the sites are known."""
    faults = []
    if plan.minimum_sites > plan.sites:
        faults.append("`minimum_sites` must be at most `sites`, or no round can ever count")
    if plan.masked and plan.sites > MOST_NAMES:
        faults.append(f"`sites` ({plan.sites}) must be at most {MOST_NAMES} where updates are masked")
    if plan.masked:
        faults += plan.parameters.problems()
        if len(plan.roster) != plan.sites or len(set(plan.roster.values())) != plan.sites:
            faults.append("`roster` must give each of the sites a public key of its own where updates are masked")
        faults += [
            f"`roster.{site}` is no key that one site alone can sign with"
            for site, key in plan.roster.items()
            if not is_sound(key)
        ]
    return faults
