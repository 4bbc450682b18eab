import tomllib
from typing import Any

import pytest

from common.config import parse_config
from common.errors import ConfigError
from common.plan import BaseIdentity, Plan, PlanDraft
from common.secagg.parameters import Parameters

DRAFT = """
name = "study"
mode = "per-site"
rounds = 4
local_steps = 5
[task]
labels = ["none", "event"]
positive_label = "event"
[optimizer]
learning_rate = 0.1
[secure_aggregation]
masked = false
[privacy]
sampling_rate = 0.2
divisor = 50
epsilon = 3
"""
BASE = {"name": "tiny", "files": {"config.json": "0" * 64}}


def draft_values(**changes: Any) -> dict[str, Any]:
    """The draft with some values replaced; `section__key` reaches into a table, None takes a key out."""
    values = tomllib.loads(DRAFT)
    for path, value in changes.items():
        *tables, key = path.split("__")
        place = values
        for table in tables:
            place = place.setdefault(table, {})
        if value is None:
            del place[key]
        else:
            place[key] = value
    return values


def finished_values(**changes: Any) -> dict[str, Any]:
    return draft_values(privacy__epsilon=None, privacy__noise_multiplier=1.5, **({"sites": 4, "base": BASE} | changes))


def rules(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(PlanDraft, draft_values(**changes), "plan.toml")
    return "\n".join(f"{problem.where}: {problem.rule}" for problem in caught.value.problems)


def test_steps_of_the_whole_run() -> None:
    assert parse_config(PlanDraft, draft_values(), "plan.toml").steps == 20


def test_a_plan_comes_back_from_its_json() -> None:
    plan = parse_config(Plan, finished_values(), "plan.toml")
    again = Plan.model_validate_json(plan.model_dump_json())
    assert again == plan
    assert again.digest == plan.digest


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    values = finished_values()
    assert Plan(**parse(values)).digest == Plan(**parse(dict(reversed(values.items())))).digest


def parse(values: dict[str, Any]) -> dict[str, Any]:
    return dict(parse_config(Plan, values, "plan.toml"))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"rounds": 5},
        {"seed": 2},
        {"sites": 5},
        {"task__max_tokens": 32},
        {"adapter__rank": 8},
        {"optimizer__momentum": 0.5},
        {"secure_aggregation__tolerated_dropouts": 0},
        {"server__learning_rate": 0.5},
        {"stopping__patience_rounds": 2},
        {"privacy__delta": 1e-6},
        {"privacy__noise_multiplier": 1.5000000000000002},
        {"base": {"name": "tiny", "files": {"config.json": "1" * 64}}},
    ],
)
def test_any_change_gives_another_digest(change: dict[str, Any]) -> None:
    values = finished_values() | {key: value for key, value in change.items() if "__" not in key}
    nested = {key: value for key, value in change.items() if "__" in key}
    for path, value in nested.items():
        table, key = path.split("__")
        values[table] = values.get(table, {}) | {key: value}
    assert parse_config(Plan, values, "plan.toml").digest != parse_config(Plan, finished_values(), "plan.toml").digest


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"privacy__epsilon": None}, "exactly one of `epsilon` and `noise_multiplier`"),
        ({"privacy__noise_multiplier": 1.0}, "exactly one of `epsilon` and `noise_multiplier`"),
        ({"task__positive_label": None}, "`task.positive_label` is needed for two labels"),
        ({"task__positive_label": "other"}, "`positive_label` must be one of `labels`"),
        ({"task__labels": ["event", "event"]}, "must not repeat a label"),
        ({"task__labels": ["event"]}, "task.labels"),
        ({"adapter__head_rounds": 4}, "`adapter.head_rounds` must be smaller than `rounds`"),
        ({"optimizer__warmup_steps": 20}, "`optimizer.warmup_steps` must be smaller"),
        ({"adapter__svd_refresh_rounds": 1, "adapter__method": "head"}, "needs method lora or lora-b"),
        ({"adapter__svd_refresh_rounds": 1, "server__average_rounds": 2}, "cannot average factors"),
        ({"adapter__svd_refresh_rounds": 1, "server__momentum": 0.9}, "server.optimizer fedavg without momentum"),
        (
            {"adapter__svd_refresh_rounds": 1, "server__optimizer": "fedadam"},
            "server.optimizer fedavg without momentum",
        ),
        ({"name": "Study 1"}, "name: must be made of small letters"),
        ({"privacy__sampling_rate": 0.0}, "privacy.sampling_rate"),
        ({"privacy__sampling_rate": 1.5}, "privacy.sampling_rate"),
        ({"privacy__delta": 1.0}, "privacy.delta"),
        ({"privacy__divisor": 0.0}, "privacy.divisor"),
        ({"privacy__grid_bits": 25}, "privacy.grid_bits"),
        ({"mode": "pooled"}, "mode: must be 'distributed' or 'per-site'"),
        ({"mode": "distributed", "local_steps": 5}, "`local_steps` must be 1 in mode distributed"),
        ({"mode": "distributed", "local_steps": 1}, "`secure_aggregation.masked` must be true in mode distributed"),
        ({"mode": "distributed", "server__momentum": 0.5}, "`server` is for mode per-site, except average_rounds"),
        ({"secure_aggregation__session_rounds": 257}, "secure_aggregation.session_rounds"),
        ({"secure_aggregation__threshold": 0}, "secure_aggregation.threshold"),
    ],
)
def test_what_no_run_can_satisfy_is_refused(change: dict[str, Any], rule: str) -> None:
    assert rule in rules(**change)


def test_several_impossible_combinations_are_all_named() -> None:
    found = rules(adapter__head_rounds=9, optimizer__warmup_steps=99)
    assert "head_rounds" in found
    assert "warmup_steps" in found


def test_a_finished_plan_needs_its_noise_and_no_target() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Plan, finished_values() | {"privacy": draft_values()["privacy"]}, "plan.toml")
    assert {problem.where for problem in caught.value.problems} == {"privacy.noise_multiplier", "privacy.epsilon"}


ROSTER = {f"hospital-{number}": f"{number:04x}" + "11" * 30 for number in range(4)}


def masked_rules(**changes: Any) -> str:
    values = finished_values(secure_aggregation__masked=True, **({"roster": ROSTER} | changes))
    with pytest.raises(ConfigError) as caught:
        parse_config(Plan, values, "plan.toml")
    return "\n".join(f"{problem.where}: {problem.rule}" for problem in caught.value.problems)


def test_a_distributed_plan_shares_its_noise_among_the_honest_survivors() -> None:
    values = finished_values(mode="distributed", local_steps=1, secure_aggregation={}) | {"roster": ROSTER}
    plan = parse_config(Plan, values, "plan.toml")
    assert plan.masked
    assert plan.noise_shares == 2
    assert plan.parameters == Parameters(sites=4, dropouts=1, colluders=1, threshold=3)
    assert parse_config(Plan, values | {"mode": "per-site"}, "plan.toml").noise_shares == 1


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"roster": {}}, "`roster` must give each of the sites a public key of its own"),
        ({"roster": ROSTER | {"hospital-0": ROSTER["hospital-1"]}}, "a public key of its own"),
        ({"roster": {name: key[:-1] for name, key in ROSTER.items()}}, "roster.hospital-0"),
        ({"roster": ROSTER | {"hospital-0": "01" + "00" * 31}}, "`roster.hospital-0` is no key that one site alone"),
        ({"secure_aggregation__tolerated_dropouts": 3}, "leave no honest noise among 4 sites"),
        ({"secure_aggregation__threshold": 2}, "must be from sites - tolerated_dropouts (3) to sites (4)"),
        ({"secure_aggregation__threshold": 5}, "must be from sites - tolerated_dropouts (3) to sites (4)"),
        ({"secure_aggregation__tolerated_dropouts": 2}, "twice `threshold` (2) must be above"),
    ],
)
def test_unsafe_secure_aggregation_is_refused(change: dict[str, Any], rule: str) -> None:
    assert rule in masked_rules(**change)


def test_a_masked_plan_has_no_more_sites_than_a_message_can_name() -> None:
    roster = {f"site-{number:03d}": f"{number:04x}" + "11" * 30 for number in range(513)}
    assert "`sites` (513) must be at most 512" in masked_rules(sites=513, roster=roster)


def test_the_digest_of_a_base_is_about_its_files() -> None:
    base = BaseIdentity(**BASE)
    assert base.digest == BaseIdentity(name="other", files=base.files).digest
    assert base.digest != BaseIdentity(name="tiny", files={"config.json": "1" * 64}).digest
    assert base.digest != BaseIdentity(name="tiny", files={"other.json": "0" * 64}).digest
