"""`cloister-simulate compare`: the federated run beside its baselines, on the same data and split.

Each arm trains the same values with the same mechanism; the arms differ in who shares what with whom.

    non-private, pooled    ordinary fine-tuning of all rows in one place, no privacy
    DP-SGD, pooled         the plan at one site that holds all rows; the divisor times the number of hospitals
    federated              the plan as it stands
    DP-SGD, alone          the plan at each hospital by itself; the mean over hospitals
    head only, pooled      DP-SGD, pooled, but only the linear head is trained
    head only, federated   federated, but only the linear head is trained
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from client.training.dp_step import TrainingSet
from common.errors import ConfigError
from common.features import Features
from common.files import write_durably
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.plan import PrivacyPlan
from common.trainable import Prepared, TrainableModel
from server.evaluation import PublicEvaluator
from simulations.baselines import train_without_privacy
from simulations.check import check_data, refuse_unfit
from simulations.comparison_picture import comparison_picture
from simulations.federation import Setting, federate
from simulations.run import new_folder
from simulations.scenario import Scenario
from simulations.world import World, build_world, finish_plan, open_base

ARMS = (
    "non-private, pooled",
    "DP-SGD, pooled",
    "federated",
    "DP-SGD, alone",
    "head only, pooled",
    "head only, federated",
)


@dataclass(frozen=True)
class Row:
    """One arm at one ε.

    Attributes:
        arm: One of `ARMS`.
        epsilon: Spent by each unit; None without privacy.
        values: The metric on the test set, one a seed.
    """

    arm: str
    epsilon: float | None
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class Comparison:
    """A finished comparison and where its files are."""

    folder: Path
    table: Table


def compare_arms(scenario: Scenario, seeds: int, epsilons: tuple[float, ...], console: Console) -> Comparison:
    """Run every arm for every ε and seed; write table, figures and picture into a folder.

    Guarantees:
        Data that do not fit, and a base that cannot be loaded, are refused before there is a folder.

    Args:
        scenario: What to compare.
        seeds: So many repeats; each has its own split, partition and noise.
        epsilons: Targets in place of the scenario's own ε or noise; none for the scenario's.
        console: For progress.

    Raises:
        ConfigError: When there is no target because the scenario fixes the noise, or when a check fails.
    """
    given = epsilons or (scenario.plan.privacy.epsilon,)
    targets = tuple(dict.fromkeys(target for target in given if target is not None))
    if not targets:
        raise ConfigError(
            "compare needs a target ε", hint="give --epsilon, or plan.privacy.epsilon in place of noise_multiplier"
        )
    if not all(0 < target < math.inf for target in targets):
        raise ConfigError(f"a target ε must be above 0 and finite (found {targets})", hint="for example --epsilon 3")
    results: dict[tuple[str, float | None], list[float]] = {}
    folder: Path | None = None
    for seed in range(scenario.seed, scenario.seed + seeds):
        seed_run = _SeedRun(scenario.model_copy(update={"seed": seed}), console)
        folder = folder or new_folder(Path(scenario.output), f"{scenario.plan.name}-comparison")
        seed_run.folder = folder / f"seed-{seed}"
        for arm, spent, value in seed_run.all_arms(targets):
            results.setdefault((arm, spent), []).append(value)
            console.print(
                f"seed {seed}  {arm}{'' if spent is None else f', ε {spent:g}'}: {metric_of(scenario)} {value:.4f}",
                highlight=False,
            )
    if folder is None:
        raise ValueError("at least one seed")
    rows = tuple(Row(arm, spent, tuple(values)) for (arm, spent), values in results.items())
    return _write(folder, scenario, rows, metric_of(scenario))


def metric_of(scenario: Scenario) -> str:
    """What arms are judged by: AUC where there is a positive label, else accuracy."""
    return "AUC" if scenario.plan.task.positive_label is not None else "accuracy"


class _SeedRun:
    """One seed's data, models and features, shared by all arms; `folder` is set once it is known that they fit."""

    folder: Path

    def __init__(self, scenario: Scenario, console: Console) -> None:
        self.scenario, self._console = scenario, console
        with console.status(f"seed {scenario.seed}: data, base model and frozen layers"):
            self._world: World = build_world(scenario)
            refuse_unfit(check_data(self._world.splits, scenario))
            self._model = self._world.model
            self._head = self._head_model()
            self._hospitals = [self._prepare(part.texts) for part in self._world.splits.hospitals]
            self._validation = self._prepare(self._world.splits.validation.texts)
            self._test = self._prepare(self._world.splits.test.texts)

    def _prepare(self, texts: tuple[str, ...]) -> Prepared:
        return self._model.prepare(texts, stages=("head", *(stage for stage in self._model.stages if stage != "head")))

    def _head_model(self) -> TrainableModel:
        adapter = self.scenario.plan.adapter.model_copy(
            update={"method": "head", "head_rounds": 0, "svd_refresh_rounds": 0}
        )
        draft = self.scenario.plan.model_copy(update={"adapter": adapter})
        return TrainableModel(open_base(self.scenario), draft, self.scenario.compute)

    def all_arms(self, targets: tuple[float, ...]) -> Iterator[tuple[str, float | None, float]]:
        """Every arm's name, ε and test metric, as they finish."""
        with self._console.status(f"seed {self.scenario.seed}: non-private, pooled"):
            weights = train_without_privacy(self._model, self._pooled(), self.scenario.baseline, self.scenario.seed)
            yield ARMS[0], None, self._judge(self._model, weights, np.zeros(0, dtype=np.float32))
        for target in targets:
            for arm in ARMS[1:]:
                with self._console.status(f"seed {self.scenario.seed}: {arm}, ε {target:g}"):
                    yield arm, target, self._private_arm(arm, target)

    def _private_arm(self, arm: str, target: float) -> float:
        model = self._head if arm.startswith("head only") else self._model
        hospitals = [self._hospital(number) for number in range(len(self._hospitals))]
        match arm:
            case "DP-SGD, pooled" | "head only, pooled":
                return self._run(arm, target, model, [self._pooled()], divisor_factor=len(hospitals))
            case "DP-SGD, alone":
                alone = [self._run(f"{arm}-{number}", target, model, [data]) for number, data in enumerate(hospitals)]
                return float(np.mean(alone))
            case _:
                return self._run(arm, target, model, hospitals)

    def _run(
        self, name: str, target: float, model: TrainableModel, hospitals: list[TrainingSet], divisor_factor: int = 1
    ) -> float:
        plan = self._plan(target, model, len(hospitals), divisor_factor)
        folder = self.folder / f"{name.replace(', ', '-').replace(' ', '-')}-{target:g}"
        folder.mkdir(parents=True)
        names = [f"hospital-{number + 1}" for number in range(len(hospitals))]
        evaluator = PublicEvaluator(model, self._validation, self._world.splits.validation.labels)
        sets = dict(zip(names, hospitals, strict=True))
        setting = Setting(plan, model, sets, evaluator, folder, self.scenario.network, self.scenario.seed)
        outcome = federate(setting).outcome
        return self._judge(model, outcome.model.weights, outcome.model.basis)

    def _plan(self, target: float, model: TrainableModel, sites: int, divisor_factor: int) -> Plan:
        draft = self.scenario.plan
        changes = {"epsilon": target, "noise_multiplier": None, "divisor": draft.privacy.divisor * divisor_factor}
        privacy = draft.privacy.model_copy(update=changes)
        sections = {"privacy": privacy, "adapter": model.plan.adapter, "minimum_sites": min(draft.minimum_sites, sites)}
        plan = finish_plan(draft.model_copy(update=sections), sites, self._world.plan.base)
        reached = epsilon(PrivacyPlan.from_terms(plan.privacy, plan.steps))
        if not reached <= target:
            raise ConfigError(f"the noise found gives ε = {reached:.4f}, above the target {target:g}")
        return plan

    def _hospital(self, number: int) -> TrainingSet:
        records, unit = self._world.splits.hospitals[number], self.scenario.plan.privacy.unit
        return TrainingSet(self._hospitals[number], records.labels, records.units(unit), records.unit_count(unit))

    def _pooled(self) -> TrainingSet:
        sets = [self._hospital(number) for number in range(len(self._hospitals))]
        starts = np.cumsum([0, *(data.unit_count for data in sets)])
        return TrainingSet(
            Prepared(
                _joined([data.prepared.hidden for data in sets]), _joined([data.prepared.pooled for data in sets])
            ),
            np.concatenate([data.labels for data in sets]),
            np.concatenate([data.units + start for data, start in zip(sets, starts, strict=False)]),
            int(starts[-1]),
        )

    def _judge(self, model: TrainableModel, weights: np.ndarray, basis: np.ndarray) -> float:
        evaluation = PublicEvaluator(model, self._test, self._world.splits.test.labels).evaluate(weights, basis)
        return evaluation.metrics[metric_of(self.scenario).lower()]


def _joined(parts: list[Features | None]) -> Features | None:
    kept = [part for part in parts if part is not None]
    return Features.join(kept) if kept else None


def _write(folder: Path, scenario: Scenario, rows: tuple[Row, ...], metric: str) -> Comparison:
    document = {
        "format_version": 1,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "scenario": scenario.model_dump(mode="json"),
        "metric": metric,
        "unit": scenario.plan.privacy.unit,
        "delta": scenario.plan.privacy.delta,
        "rows": [{**asdict(row), "mean": row.mean, "spread": row.spread} for row in rows],
    }
    title = f"{metric} on the test set, unit = {scenario.plan.privacy.unit}, δ = {scenario.plan.privacy.delta:g}"
    write_durably(folder / "comparison.png", comparison_picture(title, _series(rows)))
    write_durably(folder / "comparison.json", json.dumps(document, indent=2, ensure_ascii=False).encode())
    return Comparison(folder, _table(title, rows))


def _series(rows: tuple[Row, ...]) -> Mapping[str, list[tuple[float | None, float, float]]]:
    series: dict[str, list[tuple[float | None, float, float]]] = {}
    for row in rows:
        series.setdefault(row.arm, []).append((row.epsilon, row.mean, row.spread))
    return series


def _table(title: str, rows: tuple[Row, ...]) -> Table:
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("arm")
    for name in ("ε", "mean", "± over seeds", "seeds"):
        table.add_column(name, justify="right")
    for row in rows:
        shown = "none" if row.epsilon is None else f"{row.epsilon:g}"
        table.add_row(row.arm, shown, f"{row.mean:.4f}", f"{row.spread:.4f}", str(len(row.values)))
    return table
