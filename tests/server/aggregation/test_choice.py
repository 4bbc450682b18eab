import pytest

from server.aggregation.choice import build_aggregator
from server.aggregation.fedavg import FedAvg
from server.aggregation.fedopt import FedOpt
from server.aggregation.union_step import UnionAdam, UnionSgd

GROUPS = {"adapter": slice(0, 2), "head": slice(2, 3)}
ROSTER = {name: digit * 64 for name, digit in zip("abc", "123", strict=True)}
LINEAR = {"learning_rate": 1.0, "head_learning_rate": 4.0, "momentum": 0.5}


def make_distributed(make_plan, **changes):
    sections = {"mode": "distributed", "local_steps": 1, "roster": ROSTER, "secure_aggregation": {}}
    sections["secure_aggregation"] = {"tolerated_dropouts": 0, "tolerated_colluders": 1}
    return make_plan(**sections | {"optimizer": LINEAR} | changes)


def test_each_server_table_gives_its_rule_with_its_constants(make_plan):
    plan = make_plan(server={"learning_rate": 0.5, "momentum": 0.25})
    assert build_aggregator(plan, GROUPS, 1) == FedAvg(0.5, 0.25)
    for name in ("fedadam", "fedyogi"):
        table = {"learning_rate": 0.5, "momentum": 0.25, "second_moment": 0.5, "adaptivity": 0.125}
        plan = make_plan(server={"optimizer": name, **table})
        assert build_aggregator(plan, GROUPS, 3) == FedOpt(name, 0.5, 0.25, 0.5, 0.125)


def test_in_mode_distributed_the_rates_of_a_round_follow_the_schedule(make_plan):
    plan = make_distributed(make_plan)  # four rounds, linear
    for number, factor in ((1, 1.0), (2, 0.75), (4, 0.25)):
        rates = ((slice(0, 2), factor), (slice(2, 3), 4.0 * factor))
        assert build_aggregator(plan, GROUPS, number) == UnionSgd(rates, 0.5)


def test_adam_gets_both_of_its_decays(make_plan):
    plan = make_distributed(make_plan, optimizer={**LINEAR, "rule": "adam", "second_moment": 0.75})
    assert build_aggregator(plan, GROUPS, 1) == UnionAdam(((slice(0, 2), 1.0), (slice(2, 3), 4.0)), 0.5, 0.75)


def test_without_a_rate_of_its_own_the_head_has_the_adapters(make_plan):
    plan = make_distributed(make_plan, optimizer={"learning_rate": 2.0})
    assert build_aggregator(plan, GROUPS, 1).rates == ((slice(0, 2), 2.0), (slice(2, 3), 2.0))


@pytest.mark.parametrize(("number", "trained"), [(1, [slice(2, 3)]), (2, [slice(2, 3)]), (3, [*GROUPS.values()])])
def test_the_adapter_waits_for_its_first_round(make_plan, number, trained):
    plan = make_distributed(make_plan, adapter={"head_rounds": 2})
    assert [part for part, _ in build_aggregator(plan, GROUPS, number).rates] == trained


def test_where_there_is_no_adapter_only_the_head_is_trained(make_plan):
    plan = make_distributed(make_plan, adapter={"method": "head"})
    assert build_aggregator(plan, {"head": slice(0, 3)}, 1).rates == ((slice(0, 3), 4.0),)
