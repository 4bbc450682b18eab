import math
from dataclasses import replace

import pytest

from server.results import RunReport, SitePrivacy, noise_excess, results
from tests.plans import make_plan
from tests.server.small_report import distributed_plan, masked_plan, report_of


@pytest.fixture
def report() -> RunReport:
    return report_of(make_plan(rounds=9, stopping={"patience_rounds": 1}))


def test_results_hold_what_a_script_needs(report):
    found = results(report)
    assert found["format_version"] == 1
    assert found["plan_digest"] == report.plan.digest
    assert found["result"] == {"chosen": "best", "round": 2, "stopped_early": True}
    assert found["test"] == {
        "loss": 0.75,
        "metrics": {"auc": 0.8, "accuracy": None},
        "rows": 80,
        "rows_by_label": {"none": 60, "event": 20},
    }
    assert found["validation"]["rows"] == 40
    assert found["privacy"]["holds"] is True
    assert found["privacy"]["neighbours"] == "add/remove"
    assert (found["privacy"]["unit"], found["privacy"]["delta"]) == ("patient", 1e-5)
    assert found["privacy"]["sites"][0] == {
        "site": "north", "steps": 6, "epsilon": 1.50001, "epsilon_by_round": [0.5, 1.0, 1.5]
    }  # fmt: skip
    assert found["totals"] == {
        "rounds": 3, "rounds_planned": 9, "rounds_applied": 2, "aborts": {}, "seconds": 12.3,
        "bytes_out": 3000, "bytes_in": 1500
    }  # fmt: skip
    assert [entry["round_number"] for entry in found["rounds"]] == [1, 2, 3]
    assert found["rounds"][0]["validation"] is None
    assert list(found["versions"]) == ["cloister", "torch"]


def test_without_noise_no_guarantee_is_claimed(report):
    bare = replace(report, privacy=(SitePrivacy("north", 6, math.inf, (math.inf,) * 3),))
    privacy = results(bare)["privacy"]
    assert privacy["holds"] is False
    assert privacy["sites"][0]["epsilon"] is None
    assert privacy["sites"][0]["epsilon_by_round"] == [None, None, None]


def test_a_set_that_was_not_there_is_null(report):
    found = results(replace(report, test=None, validation=None))
    assert found["test"] is found["validation"] is None


def test_aborts_are_counted_by_reason(report):
    first, *others = report.outcome.rounds
    rounds = (replace(first, abort="too few shares"), *others)
    found = results(replace(report, outcome=replace(report.outcome, rounds=rounds)))
    assert found["totals"]["aborts"] == {"too few shares": 1}
    assert found["rounds"][0]["abort"] == "too few shares"


def test_in_mode_distributed_the_results_say_which_noise_and_against_whom():
    privacy = results(report_of(distributed_plan()))["privacy"]
    assert (privacy["noise"], privacy["noise_multiplier"]) == ("skellam", 1.0)
    assert privacy["noise_excess"] == pytest.approx(math.sqrt(5 / 3))
    assert privacy["accountant"].startswith("Rényi divergences")
    assert privacy["secure_aggregation"] == {
        "sites": 5, "tolerated_dropouts": 1, "tolerated_colluders": 1, "threshold": 4
    }  # fmt: skip


def test_a_sites_own_noise_is_gaussian_masked_or_not(report):
    for plan, terms in ((report.plan, None), (masked_plan(), {"sites": 5, "threshold": 4})):
        privacy = results(report_of(plan))["privacy"]
        assert (privacy["noise"], privacy["noise_excess"]) == ("gaussian", 1.0)
        assert privacy["accountant"].startswith("privacy loss distributions")
        found = privacy["secure_aggregation"]
        assert (found is None) if terms is None else (terms.items() <= found.items())


def test_excess_noise_is_what_would_be_there_without_those_who_may_be_missing():
    loyal = {"masked": True, "tolerated_dropouts": 0, "tolerated_colluders": 1}
    assert noise_excess(distributed_plan(secure_aggregation=loyal)) == pytest.approx(math.sqrt(5 / 4))
