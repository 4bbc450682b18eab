"""From a plan to its mechanism, and the bound within which no sum wraps round."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.plan import Plan
from common.privacy.mechanism import mechanism_of, sum_bound
from common.privacy.plan import PrivacyPlan, largest_noise_multiplier
from common.secagg.fixed_point import clamp, decode, encode
from tests.plans import make_plan

HALF = 2**31


def plan_of(sites: int = 4, dropouts: int = 1, colluders: int = 1, **changes) -> Plan:
    roster = {f"s{number}": f"{number:04x}" + "11" * 30 for number in range(sites)}
    terms = {"masked": True, "tolerated_dropouts": dropouts, "tolerated_colluders": colluders}
    settings = {"mode": "distributed", "local_steps": 1, "sites": sites, "roster": roster, "secure_aggregation": terms}
    return make_plan(**{**settings, **changes})


def test_in_mode_distributed_the_noise_is_shared_out_among_those_who_are_left_and_loyal() -> None:
    plan = plan_of(privacy={"noise_multiplier": 3.0, "sampling_rate": 0.25, "divisor": 7.0})
    mechanism = mechanism_of(plan)
    assert (mechanism.noise, mechanism.noise_shares, mechanism.steps) == ("skellam", 2, plan.rounds)
    assert mechanism.share_variance == 3.0**2 * 4.0**16 / 2
    assert (mechanism.sampling_rate, mechanism.divisor, mechanism.noise_multiplier) == (0.25, 7.0, 3.0)


@pytest.mark.parametrize("masked", [True, False])
def test_in_mode_per_site_every_site_adds_all_of_it_masked_or_not(masked: bool) -> None:
    terms = {"masked": masked, "tolerated_dropouts": 1, "tolerated_colluders": 1}
    mechanism = mechanism_of(plan_of(mode="per-site", local_steps=3, secure_aggregation=terms))
    assert (mechanism.noise, mechanism.noise_shares, mechanism.steps) == ("gaussian", 1, 6)
    # What a masked update of this mode may be is bounded by update_limit; its gradients never share a ring.
    mechanism_of(plan_of(mode="per-site", privacy={"grid_bits": 24, "divisor": 1e6}, secure_aggregation=terms))


def extremes(mechanism: PrivacyPlan, sites: int, bound: int) -> tuple[int, int]:
    """The largest total of all sites, in Python's own numbers, and what it is decoded to."""
    largest = [bound + mechanism.share_reach] * sites
    with np.errstate(over="ignore"):
        ring = encode(np.int64(largest)).sum(dtype=np.uint32)
    return sum(largest), int(decode(np.array([ring], np.uint32))[0])


@given(
    sites=st.integers(3, 200),
    dropouts=st.integers(0, 5),
    grid_bits=st.integers(8, 24),
    noise=st.one_of(st.just(0.0), st.floats(0.01, 20)),
    divisor=st.floats(0.1, 1000),
)
def test_at_the_bound_no_sum_wraps_and_one_step_beyond_it_one_does(sites, dropouts, grid_bits, noise, divisor):
    assume(2 * dropouts < sites and noise <= largest_noise_multiplier(grid_bits, "skellam", sites - dropouts))
    privacy = PrivacyPlan(
        "record", 0.5, 10, 1.0, noise, divisor, 1e-5, grid_bits, noise="skellam", noise_shares=sites - dropouts
    )
    needed = 2**grid_bits * math.ceil(divisor)
    try:
        bound = sum_bound(privacy, sites)
    except ConfigError:
        # Refused, and rightly: at what the divisor stands for, all sites together would wrap.
        assert sites * (needed + privacy.share_reach) >= HALF
        return
    assert bound >= needed
    total, decoded = extremes(privacy, sites, bound)
    assert total == decoded
    total, decoded = extremes(privacy, sites, bound + 1)
    assert total != decoded


def test_values_at_the_bound_pass_untouched_and_beyond_it_are_cut() -> None:
    bound = sum_bound(mechanism_of(plan_of()), 4)
    assert clamp(np.int64([bound, bound + 1, -bound - 1]), bound).tolist() == [bound, bound, -bound]


def divisor_at_the_edge(grid_bits: int) -> int:
    """The largest whole divisor that the bound of `plan_of` without noise has room for."""
    return ((HALF - 1) // 4) // 2**grid_bits


@pytest.mark.parametrize("grid_bits", [20, 22])
def test_a_plan_is_refused_exactly_where_a_sum_could_overflow(grid_bits: int) -> None:
    edge = divisor_at_the_edge(grid_bits)
    quiet = {"grid_bits": grid_bits, "noise_multiplier": 0.0}
    mechanism_of(plan_of(privacy={**quiet, "divisor": float(edge)}))
    with pytest.raises(ConfigError, match="could wrap round modulo 2\\^32") as caught:
        mechanism_of(plan_of(privacy={**quiet, "divisor": edge + 0.5}))
    (problem,) = caught.value.problems
    assert problem.where == "privacy.grid_bits"
    assert "lower" in caught.value.hint
    assert caught.value.exit_code == 3
    # Noise takes room too.
    with pytest.raises(ConfigError, match="could wrap round"):
        mechanism_of(plan_of(privacy={**quiet, "divisor": float(edge), "noise_multiplier": 0.3}))


def test_noise_that_leaves_no_room_at_all_is_refused_with_zero_steps_left() -> None:
    crowd = {"sites": 200, "dropouts": 10, "colluders": 1}
    with pytest.raises(ConfigError) as caught:
        mechanism_of(plan_of(**crowd, privacy={"grid_bits": 24, "noise_multiplier": 0.85}))
    assert "leaves each of 200 sites 0 steps" in caught.value.problems[0].rule
