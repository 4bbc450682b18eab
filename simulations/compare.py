"""`cloister-simulate compare`: the federated run beside its baselines, on the same data and split.

Each arm trains the same values with the same optimizer for as many steps, and is judged by its last model; the arms
differ in who shares what with whom (`simulations.arms`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from common.errors import ConfigError
from common.files import write_durably
from simulations.arms import chosen_arms
from simulations.comparison_picture import comparison_picture
from simulations.run import new_folder
from simulations.scenario import Scenario
from simulations.seed_run import SeedRun, metric_of


@dataclass(frozen=True)
class Row:
    """One arm at one ε.

    Attributes:
        arm: One of `simulations.arms.ARMS`.
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


def compare_arms(
    scenario: Scenario, seeds: int, epsilons: tuple[float, ...], console: Console, wanted: tuple[str, ...] = ()
) -> Comparison:
    """Run every arm for every ε and seed; write table, figures and picture into a folder.

    Guarantees:
        Data that do not fit, and a base that cannot be loaded, are refused before there is a folder.

    Args:
        scenario: What to compare.
        seeds: So many repeats; each has its own split, partition and noise.
        epsilons: Targets in place of the scenario's own ε or noise; none for the scenario's.
        console: For progress.
        wanted: Names of the arms to run; none for all.

    Raises:
        ConfigError: When there is no target because the scenario fixes the noise, when an arm is unknown or its plan
            impossible, or when a check fails.
    """
    given = epsilons or (scenario.plan.privacy.epsilon,)
    targets = tuple(dict.fromkeys(target for target in given if target is not None))
    if not targets:
        raise ConfigError(
            "compare needs a target ε", hint="give --epsilon, or plan.privacy.epsilon in place of noise_multiplier"
        )
    if not all(0 < target < math.inf for target in targets):
        raise ConfigError(f"a target ε must be above 0 and finite (found {targets})", hint="for example --epsilon 3")
    arms = chosen_arms(scenario.plan, wanted)
    results: dict[tuple[str, float | None], list[float]] = {}
    folder: Path | None = None
    for seed in range(scenario.seed, scenario.seed + seeds):
        seed_run = SeedRun(scenario.model_copy(update={"seed": seed}), console, arms)
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
