"""What a simulation has to tell: a line a round, the report's figures, and the last lines on the terminal."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path

import numpy as np

from common.plan import Plan
from common.privacy.accountant import epsilon, epsilon_by_round
from common.privacy.mechanism import mechanism_of
from common.records.records import Records
from server.results import Judged, RunReport, SitePrivacy
from server.run import Evaluator, Observer
from server.state import RoundSummary
from simulations.federation import Federated
from simulations.measure import WatchedEvaluator
from simulations.scenario import Scenario
from simulations.view import RoundFigures, View
from simulations.world import World

_PACKAGES = ("cloister", "torch", "transformers", "peft", "opacus", "dp-accounting")


def build_report(world: World, evaluator: Evaluator, federated: Federated) -> RunReport:
    """Judge the result on both public sets and gather what the run cost."""
    model = federated.outcome.model
    if not isinstance(evaluator, WatchedEvaluator):
        raise TypeError("a simulated run is judged on both public sets")
    validation = evaluator.validation.evaluate(model.weights, model.basis)
    test = evaluator.test.evaluate(model.weights, model.basis)
    return RunReport(
        plan=world.plan,
        outcome=federated.outcome,
        privacy=tuple(_site_privacy(world.plan, name, steps) for name, steps in federated.steps_charged.items()),
        data=describe_data(world.scenario),
        trained_values=world.model.spec.dimension,
        validation=Judged(validation, _rows_by_label(world.plan, world.splits.validation)),
        test=Judged(test, _rows_by_label(world.plan, world.splits.test)),
        seconds=federated.seconds,
        versions={name: version(name) for name in _PACKAGES},
    )


def _site_privacy(plan: Plan, site: str, steps: int) -> SitePrivacy:
    mechanism = mechanism_of(plan)
    # The whole plan's ε, also after an early stop: when to stop was decided after seeing the models.
    return SitePrivacy(site, steps, epsilon(mechanism), epsilon_by_round(mechanism, plan.rounds))


def _rows_by_label(plan: Plan, records: Records) -> dict[str, int]:
    counts = np.bincount(records.labels, minlength=len(plan.task.labels))
    return dict(zip(plan.task.labels, counts.tolist(), strict=True))


def describe_data(scenario: Scenario) -> str:
    """One sentence about where the rows come from; names files, never rows."""
    if scenario.data.files is not None:
        return f"Private rows from {', '.join(scenario.data.files.train)}, shared out to the sites by patient."
    return "Synthetic clinical notes that the project writes itself; nobody's data."


def round_teller(view: View, plan: Plan) -> Observer:
    """An observer that tells the view of each round: what it cost so far, its figures, and why it was lost."""
    spent = epsilon_by_round(mechanism_of(plan), plan.rounds)

    def observer(summary: RoundSummary) -> None:
        epsilon = spent[summary.round_number - 1]
        view.round_finished(
            RoundFigures(summary.round_number, summary.survivors, epsilon, _figures(summary), _remark(summary))
        )

    return observer


def _remark(summary: RoundSummary) -> str:
    """Why a round changed nothing; empty where it did."""
    if summary.applied:
        return ""
    return f"nothing changed: {summary.abort or 'too few sites'}"


def _figures(summary: RoundSummary) -> dict[str, float]:
    """What a reader wants to see of a round, the public test set first where it is watched."""
    if summary.validation is None:
        return {}
    metrics = summary.validation.metrics
    named = {
        "test loss": metrics.get("test_loss"),
        "validation loss": summary.validation.loss,
        "training loss": metrics.get("train_loss"),
        "validation AUC": metrics.get("auc"),
        "test AUC": metrics.get("test_auc"),
    }
    return {name: value for name, value in named.items() if value is not None}


def _round_up(value: float) -> str:
    """Two decimals, never less than the value: a cost must not look smaller than it is."""
    return f"{math.ceil(value * 100) / 100:.2f}" if math.isfinite(value) else "infinite"


def _condition(plan: Plan) -> str:
    """On what a guarantee stands besides the noise of one's own."""
    if plan.mode == "per-site":
        return ""
    if plan.parameters.colluders == 0:
        return ", against the coordinator but not against another hospital, which knows its own noise"
    return f", while at most {plan.parameters.colluders} of {plan.sites} hospitals collude with the coordinator"


def last_lines(folder: Path, report: RunReport) -> str:
    """What was reached, what it cost, and what to type next."""
    worst = max(report.privacy, key=lambda site: site.epsilon)
    metrics = report.test.evaluation.metrics if report.test else {}
    reached = ", ".join(
        f"{name.upper() if name != 'accuracy' else name} {value:.3f}" for name, value in sorted(metrics.items())
    )
    terms = report.plan.privacy
    return "\n".join(
        (
            f"reached: {reached} on the public test set",
            f"took:    {len(report.outcome.rounds)} rounds in {report.seconds:.0f} s, once everything was prepared",
            f"cost:    ε = {_round_up(worst.epsilon)} at δ = {terms.delta:g} for each {terms.unit} of each hospital"
            f"{_condition(report.plan)}",
            f"folder:  {folder}",
            f"next:    read {folder / 'model-card.md'} and look at {folder / 'learning-curve.png'};",
            "         `cloister-simulate compare` with the same scenario sets this run beside its baselines",
        )
    )
