"""A small report of a run that nobody ran."""

import math
from typing import Any

import numpy as np

from common.plan import Plan
from server.results import Judged, RunReport, SitePrivacy
from server.run import RunOutcome
from server.state import Evaluation, GlobalModel, RoundSummary
from tests.plans import make_plan

DATA = "The notes are synthetic."


def report_of(plan: Plan, rounds: int = 3, chosen: str = "best", chosen_round: int = 2) -> RunReport:
    history = tuple(
        RoundSummary(
            round_number=number,
            survivors=0 if number == 1 else 2,
            applied=number != 1,
            refusals={"malformed": 1},
            faults={},
            update_norm=0.5,
            group_norms={"head": 0.5},
            validation=None if number == 1 else Evaluation(0.5 / number, {"auc": 0.9, "test_auc": 0.7}),
            seconds=1.5,
            bytes_out=1000,
            bytes_in=500,
        )
        for number in range(1, rounds + 1)
    )
    model = GlobalModel(np.zeros(3), np.zeros(0, dtype=np.float32))
    curve = tuple(0.5 * number for number in range(1, plan.rounds + 1))
    return RunReport(
        plan=plan,
        outcome=RunOutcome(
            model, chosen, chosen_round, history[chosen_round - 1].validation, history, stopped_early=True
        ),
        privacy=(SitePrivacy("north", 6, 1.50001, curve), SitePrivacy("south", 4, 1.25, curve)),
        data=DATA,
        trained_values=12345,
        validation=Judged(Evaluation(0.25, {"auc": 0.9, "test_auc": 0.7}), {"none": 30, "event": 10}),
        test=Judged(Evaluation(0.75, {"auc": 0.8, "accuracy": math.nan}), {"none": 60, "event": 20}),
        seconds=12.3,
        versions={"torch": "2.13.0", "cloister": "0.1.0"},
    )


def distributed_plan(**changes: Any) -> Plan:
    """A plan in mode distributed for five sites, of which one may be missing and one disloyal."""
    roster = {f"site-{number}": f"{number + 1}" * 64 for number in range(5)}
    terms = {"masked": True, "tolerated_dropouts": 1, "tolerated_colluders": 1}
    sections = {"mode": "distributed", "local_steps": 1, "sites": 5, "roster": roster, "secure_aggregation": terms}
    return make_plan(**sections | changes)


def masked_plan(**changes: Any) -> Plan:
    """The same sites in mode per-site, masked."""
    return distributed_plan(mode="per-site", local_steps=2, **changes)
