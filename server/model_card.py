"""The model card: what was trained, how good it is, what is private and against whom, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from common.plan import Plan
from server.learning_curve import metric_name
from server.results import ACCOUNTANTS, RunReport, is_private, noise_excess, totals
from server.run_files import CARD_NAME
from server.state import Evaluation, RoundSummary

_TABLE_ROUNDS = 10
_OF_OTHER_SETS = ("test_", "train_")  # watched beside the validation set, and drawn in the picture
_UNITS = {"patient": "one patient's records at one site, all of them together", "record": "one record"}
_METHODS = {
    "lora-b": "LoRA with A fixed (B and a linear head)",
    "lora": "LoRA (A, B and a linear head)",
    "head": "a linear head, on top of the unchanged base",
    "bias": "biases and a linear head",
}
_CHOICES = {
    "last": "the global model of round {}, the last",
    "best": "the global model of round {}, which had the lowest validation loss",
    "averaged": "the mean of the last global models, up to round {}",
}


def model_card(report: RunReport) -> str:
    """The model card, as Markdown that Hugging Face's tools read too."""
    outcome, sums = report.outcome, totals(report)
    measured = _measured(report)
    return _template().render(
        report=report,
        plan=report.plan,
        terms=report.plan.privacy,
        private=is_private(report),
        unit=_UNITS[report.plan.privacy.unit],
        method=_METHODS[report.plan.adapter.method],
        result=_CHOICES[outcome.chosen].format(outcome.chosen_round),
        measured=measured,
        role=_role_of_validation(report),
        figures=list(dict.fromkeys(name for column in measured for name in column["figures"])),
        rounds=outcome.rounds,
        lost=sums["rounds"] - sums["rounds_applied"],
        needed=_needed_sites(report.plan),
        aborts=sums["aborts"],
        table=_table(outcome.rounds, outcome.chosen_round),
        bytes_out=sums["bytes_out"],
        bytes_in=sums["bytes_in"],
        excess=noise_excess(report.plan),
        accountant=ACCOUNTANTS[report.plan.mode],
    )


def _needed_sites(plan: Plan) -> int:
    """Answers without which a round changed nothing."""
    return max(plan.minimum_sites, plan.parameters.threshold) if plan.masked else plan.minimum_sites


def _measured(report: RunReport) -> list[dict[str, Any]]:
    """The columns of the result table: figures by name, with the loss first."""
    named = {"test set": report.test, "validation set": report.validation}
    return [
        {"name": name, "figures": _figures(judged.evaluation), "rows_by_label": judged.rows_by_label}
        for name, judged in named.items()
        if judged is not None
    ]


def _figures(evaluation: Evaluation) -> dict[str, float]:
    own = {name: value for name, value in evaluation.metrics.items() if not name.startswith(_OF_OTHER_SETS)}
    return {"loss": evaluation.loss, **dict(sorted(own.items()))}


def _role_of_validation(report: RunReport) -> str:
    if not report.plan.stopping.patience_rounds:
        return "was only watched"
    return (
        "decided when to stop"
        if report.outcome.chosen == "averaged"
        else "decided when to stop and which model is the result"
    )


def _table(rounds: Sequence[RoundSummary], chosen_round: int) -> list[RoundSummary]:
    """A few judged rounds at even distances, and the first, the last and the chosen one."""
    judged = [summary.round_number for summary in rounds if summary.validation is not None]
    every = max(1, math.ceil(len(judged) / _TABLE_ROUNDS))
    shown = {1, chosen_round, len(rounds), *judged[every - 1 :: every]}
    return [summary for summary in rounds if summary.round_number in shown]


def _template() -> Template:
    environment = Environment(  # noqa: S701 - the output is Markdown, and cells are escaped for it
        loader=PackageLoader("server", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=_cell, figure=_figure, metric=metric_name, upward=_upward)
    return environment.get_template(f"{CARD_NAME}.jinja")


def _cell(value: object) -> str:
    """A name from a plan inside a table: it may not end the cell, start a line or be taken for markup."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "|\\`*_<>[]" else letter for letter in text)


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _upward(value: float) -> str:
    """ε with three decimals, never rounded down."""
    return f"{math.ceil(value * 1000) / 1000:.3f}"
