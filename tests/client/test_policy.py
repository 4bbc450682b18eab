from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

import pytest

from client.limits import Evaluation, NoiseFloor, SitePolicy
from client.policy import CLOCK_SKEW, PolicyContext, reasons_to_refuse
from common.identity import new_identity, public_name
from common.plan import Plan
from common.reasons import PolicyCode
from tests.plans import make_plan

NOW = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
KEYS = {name: public_name(new_identity()) for name in ("a", "b", "c", "d", "e")}
COORDINATOR = public_name(new_identity())
FOUR = {name: KEYS[name] for name in "abcd"}


def context(**changes: Any) -> PolicyContext:
    values = {
        "site": "a",
        "identity_public": KEYS["a"],
        "coordinator_public": COORDINATOR,
        "now": NOW,
        "valid_until": NOW + timedelta(days=30),
        "approved": True,
        "base_is_local": False,
    }
    return PolicyContext(**{**values, **changes})


def distributed(**changes: Any) -> Plan:
    """A plan that the default policy takes: n = 4, d = 1, c = 1, t = 3."""
    values: dict[str, Any] = {
        "mode": "distributed",
        "rounds": 20,
        "local_steps": 1,
        "sites": 4,
        "minimum_sites": 3,
        "roster": FOUR,
        "privacy": {"sampling_rate": 0.1, "noise_multiplier": 1.0, "divisor": 40.0},
        "secure_aggregation": {"masked": True, "tolerated_dropouts": 1, "tolerated_colluders": 1},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) and key != "roster" else value
    return make_plan(**values)


def per_site(**changes: Any) -> Plan:
    return distributed(**{"mode": "per-site", "rounds": 4, "local_steps": 5, **changes})


def plain(**changes: Any) -> Plan:
    return per_site(secure_aggregation={"masked": False}, **changes)


def codes(plan: Plan, policy: SitePolicy | None = None, **changes: Any) -> list[str]:
    return [reason.code for reason in reasons_to_refuse(plan, policy or SitePolicy(), context(**changes))]


@pytest.mark.parametrize("plan", [distributed(), per_site()])
def test_a_decent_plan_is_taken_by_the_defaults(plan: Plan) -> None:
    assert codes(plan) == []


# --- one plan, or one context, for each limit; it breaks that limit alone ---

BROKEN: dict[str, tuple[Plan, SitePolicy, dict[str, Any]]] = {
    "not-in-roster": (distributed(roster={**{n: KEYS[n] for n in "bcde"}}), SitePolicy(), {}),
    "other-coordinator": (distributed(), SitePolicy(coordinators=(KEYS["e"],)), {}),
    "plan-expired": (distributed(), SitePolicy(), {"valid_until": NOW - timedelta(seconds=1)}),
    "plan-not-yet-valid": (distributed(), SitePolicy(), {"issued": NOW + CLOCK_SKEW + timedelta(seconds=1)}),
    "validity-too-long": (distributed(), SitePolicy(longest_validity_days=29), {}),
    "policy-expired": (distributed(), SitePolicy(expires=date(2026, 11, 2)), {}),
    "not-approved": (distributed(), SitePolicy(), {"approved": False}),
    "other-unit": (distributed(privacy={"unit": "record"}), SitePolicy(), {}),
    "impossible-mechanism": (distributed(privacy={"grid_bits": 24, "divisor": 1e6}), SitePolicy(), {}),
    "too-little-noise": (distributed(), SitePolicy(noise_floor=NoiseFloor(patient=1.01)), {}),
    "epsilon-too-high": (distributed(), SitePolicy(most_epsilon=0.5), {}),
    "delta-too-high": (distributed(privacy={"delta": 1.1e-5}), SitePolicy(), {}),
    "sampling-rate-too-high": (distributed(), SitePolicy(most_sampling_rate=0.09), {}),
    "too-many-rounds": (distributed(), SitePolicy(most_rounds=19), {}),
    "too-many-local-steps": (per_site(), SitePolicy(most_local_steps=4), {}),
    "other-mode": (per_site(), SitePolicy(modes=("distributed",)), {}),
    "not-masked": (plain(), SitePolicy(), {}),
    "too-few-sites": (distributed(), SitePolicy(least_sites=5), {}),
    "cohort-too-small": (plain(minimum_sites=2), SitePolicy(masked_only=False), {}),
    "threshold-too-low": (distributed(), SitePolicy(least_threshold=4), {}),
    "too-few-colluders": (distributed(secure_aggregation={"tolerated_colluders": 0}), SitePolicy(), {}),
    "honest-share-too-high": (distributed(), SitePolicy(most_honest_share=0.49), {}),
    "other-base": (distributed(), SitePolicy(bases={"tiny": "1" * 64}), {}),
    "base-not-local": (distributed(), SitePolicy(base_must_be_local=True), {}),
    "other-task": (distributed(), SitePolicy(tasks=("tagging",)), {}),
    "other-method": (distributed(adapter={"method": "bias"}), SitePolicy(), {}),
    "other-targets": (distributed(), SitePolicy(targets=("q*",)), {}),
    "too-many-trained-values": (distributed(), SitePolicy(most_trained_values=99), {"trained_values": 100}),
    "other-release": (distributed(), SitePolicy(releases=("masked", "public")), {}),
}


@pytest.mark.parametrize("code", BROKEN)
def test_each_limit_alone(code: str) -> None:
    plan, policy, changes = BROKEN[code]
    assert codes(plan, policy, **changes) == [code]


def test_no_limit_is_left_out() -> None:
    # No plan of this format can ask for another evaluation, and no policy can leave the one there is out.
    assert get_args(Evaluation) == ("public-set",)
    assert set(BROKEN) | {"other-evaluation"} == set(get_args(PolicyCode))
