"""The report of a finished run: a picture, a model card, and last of all `results.json`, which marks it as finished."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from common.files import write_durably
from common.plan import Plan
from server.learning_curve import learning_curve, metric_name
from server.run import RunOutcome
from server.state import Evaluation, RoundSummary, as_json

RESULTS_NAME = "results.json"
CARD_NAME = "model-card.md"
CURVE_NAME = "learning-curve.png"
FORMAT_VERSION = 1
NEIGHBOURS = "add/remove"

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


@dataclass(frozen=True)
class SitePrivacy:
    """What a run cost one site.

    Args:
        site: Its name.
        steps: Noised steps in its book, whether or not their outcome arrived.
        epsilon: ε of the whole plan at its δ, also after an early stop (which depends on results).
        epsilon_by_round: ε after each round; values for rounds that a run stopped short of are not shown.
    """

    site: str
    steps: int
    epsilon: float
    epsilon_by_round: tuple[float, ...]


@dataclass(frozen=True)
class Judged:
    """Figures of the result on one public set, and how many rows of each label that has."""

    evaluation: Evaluation
    rows_by_label: Mapping[str, int]


@dataclass(frozen=True)
class RunReport:
    """Everything that is written about a run.

    None of it depends on a private record but through noised updates, save the metrics named `train_...` that a
    simulation may watch: those are marked in `results.json` as not private.

    Args:
        plan: The plan.
        outcome: What the coordinator got.
        privacy: One entry a site.
        data: One sentence about where the records came from.
        trained_values: d, the number of values that were trained.
        validation: The result on the set that decided about stopping.
        test: The result on the set that decided nothing.
        seconds: Wall-clock time of the run.
        versions: Of the packages that matter.
    """

    plan: Plan
    outcome: RunOutcome
    privacy: tuple[SitePrivacy, ...]
    data: str
    trained_values: int
    validation: Judged | None
    test: Judged | None
    seconds: float
    versions: Mapping[str, str]


def write_report(report: RunReport, folder: Path) -> None:
    """Write picture, model card and results into the run folder.

    Guarantees:
        `results.json` is removed first and written last, each in one durable step: where it is, the rest is there too
        and of the same run.

    Args:
        report: The run.
        folder: Run folder; must exist.
    """
    (folder / RESULTS_NAME).unlink(missing_ok=True)
    curves = {site.site: _spent(report, site) for site in report.privacy}
    write_durably(folder / CURVE_NAME, learning_curve(report.outcome.rounds, report.outcome.chosen_round, curves))
    write_durably(folder / CARD_NAME, model_card(report).encode("utf-8"))
    text = json.dumps(results(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_durably(folder / RESULTS_NAME, f"{text}\n".encode())


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    return (folder / RESULTS_NAME).is_file()


def results(report: RunReport) -> dict[str, Any]:
    """The run as plain JSON values, keys in a stable order.

    Edge cases:
        A figure without a finite value is null; so is ε without noise, and `privacy.holds` is then false.
    """
    plan, outcome = report.plan, report.outcome
    return {
        "format_version": FORMAT_VERSION,
        "name": plan.name,
        "plan_digest": plan.digest,
        "mode": plan.mode,
        "task": plan.task.model_dump(mode="json"),
        "base": plan.base.model_dump(mode="json"),
        "adapter": plan.adapter.model_dump(mode="json"),
        "trained_values": report.trained_values,
        "data": report.data,
        "result": {"chosen": outcome.chosen, "round": outcome.chosen_round, "stopped_early": outcome.stopped_early},
        "validation": _judged(report.validation),
        "test": _judged(report.test),
        "privacy": _privacy(report),
        "not_private": _not_private(report),
        "totals": _totals(report),
        "rounds": [as_json(summary) for summary in outcome.rounds],
        "versions": dict(sorted(report.versions.items())),
    }


def _not_private(report: RunReport) -> list[str]:
    """Figures that were taken from private rows without noise, for a researcher's eyes; never with real patients."""
    rounds = report.outcome.rounds
    metrics = {name for summary in rounds if summary.validation is not None for name in summary.validation.metrics}
    return sorted(f"rounds.validation.metrics.{name}" for name in metrics if name.startswith("train_"))


def _judged(judged: Judged | None) -> dict[str, Any] | None:
    if judged is None:
        return None
    counts = dict(judged.rows_by_label)
    return {**as_json(judged.evaluation), "rows": sum(counts.values()), "rows_by_label": counts}


def _privacy(report: RunReport) -> dict[str, Any]:
    return {
        "holds": _is_private(report),
        "neighbours": NEIGHBOURS,
        **report.plan.privacy.model_dump(mode="json"),
        "sites": [
            {
                "site": site.site,
                "steps": site.steps,
                "epsilon": _finite(site.epsilon),
                "epsilon_by_round": [_finite(value) for value in _spent(report, site)],
            }
            for site in report.privacy
        ],
    }


def _spent(report: RunReport, site: SitePrivacy) -> tuple[float, ...]:
    return site.epsilon_by_round[: len(report.outcome.rounds)]


def _is_private(report: RunReport) -> bool:
    return all(math.isfinite(site.epsilon) for site in report.privacy)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _totals(report: RunReport) -> dict[str, Any]:
    rounds = report.outcome.rounds
    return {
        "rounds": len(rounds),
        "rounds_planned": report.plan.rounds,
        "rounds_applied": sum(summary.applied for summary in rounds),
        "seconds": report.seconds,
        "bytes_out": sum(summary.bytes_out for summary in rounds),
        "bytes_in": sum(summary.bytes_in for summary in rounds),
    }


def model_card(report: RunReport) -> str:
    """The model card, as Markdown that Hugging Face's tools read too."""
    outcome, totals = report.outcome, _totals(report)
    measured = _measured(report)
    return _template().render(
        report=report,
        plan=report.plan,
        terms=report.plan.privacy,
        private=_is_private(report),
        unit=_UNITS[report.plan.privacy.unit],
        method=_METHODS[report.plan.adapter.method],
        result=_CHOICES[outcome.chosen].format(outcome.chosen_round),
        measured=measured,
        role=_role_of_validation(report),
        figures=list(dict.fromkeys(name for column in measured for name in column["figures"])),
        rounds=outcome.rounds,
        lost=totals["rounds"] - totals["rounds_applied"],
        table=_table(outcome.rounds, outcome.chosen_round),
        bytes_out=totals["bytes_out"],
        bytes_in=totals["bytes_in"],
    )


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
    """A few rounds at even distances, with the first, the last and the chosen one among them."""
    every = max(1, math.ceil(len(rounds) / _TABLE_ROUNDS))
    shown = {1, chosen_round, len(rounds), *range(every, len(rounds) + 1, every)}
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
