import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import policy as module
from client.limits import Evaluation, NoiseFloor, SitePolicy
from client.policy import CLOCK_SKEW, PolicyContext, reasons_to_refuse, release_classes_of
from common.audit_fields import ReleaseClass
from common.identity import new_identity, public_name
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.mechanism import mechanism_of
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


# --- all at once, and the edges ---


def test_no_reason_hides_another() -> None:
    plan = distributed(privacy={"unit": "record", "noise_multiplier": 0.2, "delta": 0.1})
    policy = SitePolicy(**{**strictest(), "noise_floor": NoiseFloor(), "expires": date(2026, 1, 1)})
    found = codes(
        plan,
        policy,
        site="z",
        approved=False,
        valid_until=NOW - timedelta(days=1),
        issued=NOW + timedelta(days=1),
        trained_values=100,
    )
    # The rest needs a plan that is not masked, of local steps, whose ε is unknown, or that is valid for years.
    elsewhere = {"not-masked", "too-many-local-steps", "impossible-mechanism", "validity-too-long", "other-mode"}
    elsewhere |= {"cohort-too-small", "other-evaluation"}
    assert set(found) == set(get_args(PolicyCode)) - elsewhere
    assert len(set(found)) == len(found)


def strictest() -> dict[str, Any]:
    """Limits that `distributed()` breaks, where it can."""
    return {
        "coordinators": (KEYS["e"],),
        "most_epsilon": 0.1,
        "most_delta": 1e-9,
        "most_sampling_rate": 0.01,
        "most_rounds": 1,
        "least_sites": 9,
        "least_threshold": 9,
        "least_colluders": 9,
        "most_honest_share": 0.1,
        "bases": {},
        "base_must_be_local": True,
        "tasks": ("tagging",),
        "methods": ("bias",),
        "targets": (),
        "most_trained_values": 1,
        "releases": ("public",),
    }


def test_limits_count_themselves() -> None:
    cost = epsilon(mechanism_of(distributed()))
    exact = SitePolicy(
        longest_validity_days=30,
        expires=NOW.date(),
        coordinators=(COORDINATOR,),
        noise_floor=NoiseFloor(patient=1.0),
        most_epsilon=cost,
        most_sampling_rate=0.1,
        most_rounds=20,
        most_local_steps=1,
        least_sites=4,
        least_cohort=3,
        least_threshold=3,
        least_colluders=1,
        most_honest_share=0.5,
        bases={"tiny": distributed().base.digest},
        base_must_be_local=True,
        targets=("query", "val*"),
        most_trained_values=100,
        releases=("masked", "key material", "public"),
    )
    assert codes(distributed(), exact, base_is_local=True, trained_values=100, issued=NOW + CLOCK_SKEW) == []
    assert codes(distributed(), exact, base_is_local=True, trained_values=100, valid_until=NOW) == []


def test_the_name_with_another_key_is_another_site() -> None:
    (reason,) = reasons_to_refuse(distributed(), SitePolicy(), context(identity_public=KEYS["e"]))
    assert (reason.code, reason.asked) == ("not-in-roster", "another key")


def test_a_masked_round_holds_at_least_the_threshold() -> None:
    assert codes(distributed(minimum_sites=1), SitePolicy(least_cohort=3)) == []
    assert codes(distributed(minimum_sites=1), SitePolicy(least_cohort=4)) == ["cohort-too-small"]


def test_trained_values_may_be_unknown_only_until_the_base_is_here() -> None:
    policy = SitePolicy(most_trained_values=100)
    assert codes(distributed(), policy, base_is_local=False) == []
    assert codes(distributed(), policy, base_is_local=True) == ["too-many-trained-values"]


def test_targets_matter_where_there_is_lora() -> None:
    policy = SitePolicy(targets=("none",), methods=("head", "lora"))
    assert codes(distributed(adapter={"method": "head"}), policy) == []
    (reason,) = reasons_to_refuse(distributed(adapter={"method": "lora"}), policy, context())
    assert reason.asked == "query, value"


@pytest.mark.parametrize("noise", [0.0, 1e-300])
def test_no_noise_is_refused_twice(noise: float) -> None:
    found = codes(distributed(privacy={"noise_multiplier": noise}))
    assert found in (["too-little-noise", "epsilon-too-high"], ["too-little-noise", "impossible-mechanism"])


@pytest.mark.parametrize("error", [OverflowError, ValueError, ZeroDivisionError])
def test_constants_that_no_accountant_takes_are_refused(error: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(mechanism: Any) -> float:
        raise error

    monkeypatch.setattr("client.policy.epsilon", fail)
    assert codes(distributed()) == ["impossible-mechanism"]


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_what_cannot_be_compared_breaks_the_limit(figure: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.policy.epsilon", lambda mechanism: figure)
    assert codes(distributed(), SitePolicy(most_epsilon=1e300)) == ["epsilon-too-high"]


def test_neither_comparison_lets_nan_pass() -> None:
    assert list(module._at_least("too-few-sites", "sites", math.nan, "least_sites", 1))
    assert list(module._at_most("too-many-rounds", "rounds", math.nan, "most_rounds", 1))


def test_another_evaluation_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # As the plans of a later version might ask for.
    monkeypatch.setattr("client.policy._EVALUATIONS", ("public-set", "site-records"))
    (reason,) = reasons_to_refuse(distributed(), SitePolicy(), context())
    assert (reason.code, reason.asked) == ("other-evaluation", "site-records")


def test_a_base_is_its_files_and_its_name() -> None:
    known = distributed().base.digest
    assert codes(distributed(), SitePolicy(bases={"tiny": known})) == []
    assert codes(distributed(), SitePolicy(bases={"other": known})) == ["other-base"]
    assert codes(distributed(), SitePolicy(bases={})) == ["other-base"]


def test_times_without_a_zone_are_no_times() -> None:
    with pytest.raises(ValueError, match="time zone"):
        context(now=datetime(2026, 11, 3))  # noqa: DTZ001 - the fault itself


def test_a_policys_last_day_is_counted_in_utc() -> None:
    policy = SitePolicy(expires=NOW.date())
    evening = datetime(2026, 11, 4, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert codes(distributed(), policy, now=evening) == []
    assert codes(distributed(), policy, now=evening + timedelta(minutes=31)) == ["policy-expired"]


def test_what_leaves_is_told_by_the_exits_own_list() -> None:
    assert release_classes_of(distributed()) == {"masked", "key material", "public"}
    assert release_classes_of(plain()) == {"noised and charged", "public"}


def test_a_reason_says_rule_plan_limit_and_next_step() -> None:
    (reason,) = reasons_to_refuse(distributed(), SitePolicy(most_rounds=19), context())
    assert str(reason) == "`rounds` must be at most `policy.most_rounds` (plan: 20; limit: 19)"
    for code, (plan, policy, changes) in BROKEN.items():
        (reason,) = reasons_to_refuse(plan, policy, context(**changes))
        assert all((reason.rule, reason.asked, reason.limit, reason.hint)), code


# --- stricter never forgives ---

PLANS = (
    distributed(),
    distributed(rounds=5, minimum_sites=1, privacy={"noise_multiplier": 0.4}),
    per_site(privacy={"unit": "record", "delta": 1e-4}),
    plain(local_steps=2, adapter={"method": "bias"}),
)
CHOICES: dict[str, tuple[str, ...]] = {
    "units": ("patient", "record"),
    "modes": ("distributed", "per-site"),
    "methods": ("lora-b", "lora", "head", "bias"),
    "tasks": ("text-classification", "tagging"),
    "releases": get_args(ReleaseClass),
}
LEAST = ("least_sites", "least_cohort", "least_threshold", "least_colluders")
MOST = ("most_rounds", "most_local_steps", "longest_validity_days", "most_trained_values")
SHARES = ("most_delta", "most_sampling_rate", "most_honest_share")
SWITCHES = ("approval_needed", "masked_only", "base_must_be_local")


@st.composite
def two_policies(draw: st.DrawFn) -> tuple[SitePolicy, SitePolicy]:
    """A policy, and one that is as strict or stricter in every limit."""
    loose: dict[str, Any] = {}
    strict: dict[str, Any] = {}
    for name, values in CHOICES.items():
        loose[name] = tuple(draw(st.lists(st.sampled_from(values), min_size=1, unique=True)))
        strict[name] = tuple(draw(st.lists(st.sampled_from(loose[name]), min_size=1, unique=True)))
    for names, numbers, order in (
        (LEAST, st.integers(1, 6), 1),
        (MOST, st.integers(1, 40), -1),
        (SHARES, st.sampled_from([1e-6, 1e-5, 1e-4, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0]), -1),
        (("most_epsilon",), st.floats(0.1, 20), -1),
    ):
        for name in names:
            loose[name], strict[name] = sorted((draw(numbers), draw(numbers)), reverse=order < 0)
    for name in SWITCHES:
        loose[name], strict[name] = sorted((draw(st.booleans()), draw(st.booleans())))
    floors = st.sampled_from([0.1, 0.4, 0.5, 1.0, 2.0])
    pairs = {unit: sorted((draw(floors), draw(floors))) for unit in CHOICES["units"]}
    loose["noise_floor"] = NoiseFloor(**{unit: pair[0] for unit, pair in pairs.items()})
    strict["noise_floor"] = NoiseFloor(**{unit: pair[1] for unit, pair in pairs.items()})
    for name, ladder in LADDERS.items():
        first, second = sorted((draw(st.integers(0, len(ladder) - 1)), draw(st.integers(0, len(ladder) - 1))))
        loose[name], strict[name] = ladder[first], ladder[second]
    return SitePolicy(**loose), SitePolicy(**strict)


# From loose to strict.
LADDERS: dict[str, tuple[Any, ...]] = {
    "coordinators": (None, (COORDINATOR, KEYS["e"]), (KEYS["e"],), ()),
    "bases": (None, {"tiny": distributed().base.digest, "x": "0" * 64}, {"x": "0" * 64}, {}),
    "targets": (("*",), ("query", "value"), ("query",), ()),
    "expires": (None, date(2027, 1, 1), date(2026, 11, 3), date(2026, 11, 2)),
}


def test_every_limit_takes_part_in_the_property() -> None:
    varied = {*CHOICES, *LEAST, *MOST, *SHARES, *SWITCHES, *LADDERS, "most_epsilon", "noise_floor", "evaluations"}
    assert varied == set(SitePolicy.model_fields)


@given(two_policies(), st.sampled_from(PLANS), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_stricter_limit_never_takes_a_reason_away(
    policies: tuple[SitePolicy, SitePolicy], plan: Plan, approved: bool, local: bool
) -> None:
    loose, strict = (
        codes(plan, policy, approved=approved, base_is_local=local, trained_values=20) for policy in policies
    )
    assert set(loose) <= set(strict)
