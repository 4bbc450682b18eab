"""The plans of the arms: the same steps of the same optimizer, and what differs between them."""

from typing import Any

import pytest

from common.errors import ConfigError, UsageError
from common.plan import PlanDraft
from simulations.arms import (
    ARMS,
    HEAD_DISTRIBUTED,
    HEAD_POOLED,
    as_distributed,
    as_per_site,
    at_epsilon,
    chosen_arms,
    with_head_alone,
)


def draft(**changes: Any) -> PlanDraft:
    sections = {
        "name": "study",
        "mode": "per-site",
        "rounds": 6,
        "local_steps": 5,
        "task": {"labels": ["no", "yes"], "positive_label": "yes"},
        "adapter": {"head_rounds": 2},
        "privacy": {"epsilon": 8.0, "sampling_rate": 0.5, "divisor": 10.0},
        "optimizer": {"learning_rate": 1.0, "warmup_steps": 3},
        "server": {"optimizer": "fedadam"},
        "stopping": {"patience_rounds": 2},
    }
    return PlanDraft.model_validate(sections | changes)


def test_per_site_becomes_distributed_step_by_step() -> None:
    plan = as_distributed(draft(), sites=4)
    assert (plan.mode, plan.rounds, plan.local_steps, plan.steps) == ("distributed", 30, 1, 30)
    assert plan.adapter.head_rounds == 10
    assert plan.privacy.divisor == 40.0
    assert plan.optimizer == draft().optimizer
    assert plan.server.optimizer == "fedavg"


def test_there_and_back_is_the_same_plan_but_for_the_server_rule() -> None:
    there = as_distributed(draft(server={}), sites=4)
    back = as_per_site(there, sites=4, local_steps=5)
    for name in ("mode", "rounds", "local_steps", "adapter", "privacy", "optimizer", "server", "task"):
        assert getattr(back, name) == getattr(draft(server={}), name), name


def test_a_plan_of_the_wanted_mode_stays_as_it_is() -> None:
    assert as_per_site(draft(), 4, 3).privacy == draft().privacy
    distributed = as_distributed(draft(), 4)
    assert as_distributed(distributed, 4) == distributed


def test_steps_that_cannot_be_split_into_rounds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"compare.per_site_steps \(4\) must divide plan.rounds \(30\)"):
        as_per_site(as_distributed(draft(), 4), 4, 4)


def test_every_arm_is_judged_by_its_last_model() -> None:
    for plan in (as_distributed(draft(), 4), as_per_site(draft(), 4, 5), with_head_alone(draft())):
        assert plan.stopping.patience_rounds == 0
        assert plan.stopping.judge_rounds == plan.steps or plan.mode == "per-site"


def test_the_head_alone_and_another_target() -> None:
    assert with_head_alone(draft()).adapter.method == "head"
    assert at_epsilon(draft(), 3.0).privacy.epsilon == 3.0
    fixed = draft(privacy={"noise_multiplier": 2.0, "sampling_rate": 0.5, "divisor": 10.0})
    assert at_epsilon(fixed, 3.0).privacy.noise_multiplier is None


def test_arms_come_in_the_order_of_the_table() -> None:
    assert chosen_arms(draft(), ()) == tuple(ARMS)
    assert chosen_arms(draft(), ("per-site", "distributed")) == ("distributed", "per-site")
    alone = with_head_alone(draft())
    assert set(ARMS) - set(chosen_arms(alone, ())) == {HEAD_POOLED, HEAD_DISTRIBUTED}
    with pytest.raises(UsageError, match="is no arm of this comparison"):
        chosen_arms(alone, (HEAD_POOLED,))
