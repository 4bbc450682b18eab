"""The arms of a comparison: who shares what with whom, and the plan that each of them follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config import parse_config
from common.errors import ConfigError, UsageError
from common.plan import PlanDraft, ServerConfig

NON_PRIVATE = "non-private, pooled"
POOLED = "DP-SGD, pooled"
POOLED_NOISIER = "DP-SGD, pooled, noise of distributed"
DISTRIBUTED = "distributed"
PER_SITE = "per-site"
ALONE = "DP-SGD, alone"
HEAD_POOLED = "head only, pooled"
HEAD_DISTRIBUTED = "head only, distributed"

ARMS: Mapping[str, str] = {
    NON_PRIVATE: "ordinary fine-tuning of all rows in one place, no privacy",
    POOLED: "DP-SGD on all rows in one place",
    POOLED_NOISIER: "the same under the noise that `distributed` has when nobody drops out: √(n/(n-d-c)) larger",
    DISTRIBUTED: "the sum over the hospitals is private, and nothing is pooled",
    PER_SITE: "each hospital's own update is private, and they are averaged",
    ALONE: "DP-SGD at each hospital by itself; the mean over hospitals",
    HEAD_POOLED: "DP-SGD, pooled, but only the linear head is trained",
    HEAD_DISTRIBUTED: "distributed, but only the linear head is trained",
}
"""Every arm and what it is, in the order of the table."""


def chosen_arms(draft: PlanDraft, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The arms to run: those that are wanted, or all; a plan that trains the head alone has no arms of that kind.

    Raises:
        UsageError: When a wanted one is not an arm of this plan.
    """
    head_alone = draft.adapter.method == "head"
    known = tuple(arm for arm in ARMS if not (head_alone and arm in (HEAD_POOLED, HEAD_DISTRIBUTED)))
    unknown = [arm for arm in wanted if arm not in known]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no arm of this comparison", hint=f"the arms are: {'; '.join(known)}")
    return tuple(arm for arm in known if not wanted or arm in wanted)


def as_distributed(draft: PlanDraft, sites: int) -> PlanDraft:
    """The same steps of the same optimizer, each one of them over the union of the hospitals."""
    if draft.mode == "distributed":
        return _changed(draft)
    local = draft.local_steps
    return _changed(
        draft,
        mode="distributed",
        rounds=draft.steps,
        local_steps=1,
        server=ServerConfig(average_rounds=draft.server.average_rounds),
        adapter=draft.adapter.model_copy(
            update={"head_rounds": draft.adapter.head_rounds * local, "svd_refresh_rounds": 0}
        ),
        secure_aggregation=draft.secure_aggregation.model_copy(update={"masked": True}),
        privacy=draft.privacy.model_copy(update={"divisor": draft.privacy.divisor * sites}),
    )


def as_per_site(draft: PlanDraft, sites: int, local_steps: int) -> PlanDraft:
    """The same steps of the same optimizer, each hospital taking `local_steps` of them by itself between two messages.

    Raises:
        ConfigError: When the steps, or those of the head alone, cannot be split into such rounds.
    """
    if draft.mode == "per-site":
        return _changed(draft)
    if draft.rounds % local_steps or draft.adapter.head_rounds % local_steps:
        raise ConfigError(
            f"compare.per_site_steps ({local_steps}) must divide plan.rounds ({draft.rounds}) "
            f"and plan.adapter.head_rounds ({draft.adapter.head_rounds})",
            hint="set compare.per_site_steps to a common divisor",
        )
    return _changed(
        draft,
        mode="per-site",
        rounds=draft.rounds // local_steps,
        local_steps=local_steps,
        adapter=draft.adapter.model_copy(update={"head_rounds": draft.adapter.head_rounds // local_steps}),
        privacy=draft.privacy.model_copy(update={"divisor": draft.privacy.divisor / sites}),
    )


def with_head_alone(draft: PlanDraft) -> PlanDraft:
    """The same plan, training the linear head and nothing else."""
    changes = {"method": "head", "head_rounds": 0, "svd_refresh_rounds": 0}
    return _changed(draft, adapter=draft.adapter.model_copy(update=changes))


def at_epsilon(draft: PlanDraft, target: float) -> PlanDraft:
    """The same plan with its noise calibrated to a target."""
    return _changed(draft, privacy=draft.privacy.model_copy(update={"epsilon": target, "noise_multiplier": None}))


def _changed(draft: PlanDraft, **changes: Any) -> PlanDraft:  # noqa: ANN401 - sections and values of a plan
    """A draft with other sections, checked; every arm is judged by its last model, and none is stopped early."""
    last_model = {"stopping": draft.stopping.model_copy(update={"patience_rounds": 0, "judge_rounds": draft.steps})}
    sections = {name: getattr(draft, name) for name in type(draft).model_fields} | last_model | changes
    return parse_config(PlanDraft, sections, "the plan of an arm")
