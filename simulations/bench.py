"""`make bench`: what privacy and the simulation cost, as ratios measured in one process.

Seconds on a shared machine say little; each figure is the quotient of two medians whose samples were taken in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import build_optimizer, recording, set_gradient
from common.base_model import Base
from common.privacy.plan import PrivacyPlan
from common.randomness import SecretSource, public_generator
from common.trainable import TrainableModel
from simulations.cli import find_scenario
from simulations.scenario import Scenario, load_scenario
from simulations.world import finish_plan, open_base

_ROWS = 64
_TOKENS = 64
_TURNS = 9
_WORDS = "the patient was seen again and did well after the first day of treatment with a new drug".split()


def main() -> None:
    """Measure, and print one line a figure."""
    scenario = load_scenario(find_scenario("demo"))
    table = Table(title="Cloister bench", box=None, pad_edge=False)
    for name, justify in (("figure", "left"), ("value", "right"), ("aim", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich's literal type is not exported
    for name, value, aim in (*step_figures(scenario), *simulation_figures(scenario), *memory_figures()):
        table.add_row(name, value, aim)
    Console().print(table)


def step_figures(scenario: Scenario) -> list[tuple[str, str, str]]:
    """DP step over plain PEFT step, on the same model and rows, with the frozen layers cached and without."""
    figures = []
    for title, top_layers in (("frozen layers cached", 2), ("adapters in all layers", 0)):
        adapter = scenario.plan.adapter.model_copy(
            update={"method": "lora-b", "top_layers": top_layers, "head_rounds": 0}
        )
        plan = scenario.plan.model_copy(update={"adapter": adapter})
        ratio = step_ratio(open_base(scenario), scenario.model_copy(update={"plan": plan}))
        figures.append((f"DP step / plain PEFT step, {title}", f"{ratio:.3f}", "<= 1.05"))
    return figures


def step_ratio(base: Base, scenario: Scenario) -> float:
    """Median time of a DP step over that of a plain step on the same rows."""
    plan = finish_plan(scenario.plan, 1, base.identity)
    model = TrainableModel(base, plan, scenario.compute)
    data = _made_up_rows(model)
    # Every row is drawn, so that both steps see the same rows; the machinery around them is the real one.
    mechanism = replace(PrivacyPlan.from_terms(plan.privacy, 1), sampling_rate=1.0, unit="record")
    step = DpStep(mechanism, model, data, SecretSource())
    optimizer = build_optimizer(plan.local, model, "full")

    def private() -> None:
        with recording(model) as gradients:
            set_gradient(model.parameters("full"), step.noisy_gradient(gradients, "full"))
        optimizer.step()

    def plain() -> None:
        optimizer.zero_grad(set_to_none=True)
        for batch in data.prepared.at("full").batches(np.arange(_ROWS), model.compute.tokens_per_batch):
            logits = model.module(batch.values, batch.mask)
            functional.cross_entropy(logits, torch.from_numpy(data.labels[batch.rows])).backward()
        optimizer.step()

    return _ratio(private, plain)


def _made_up_rows(model: TrainableModel) -> TrainingSet:
    generator = public_generator(0, "bench rows")
    texts = [" ".join(generator.choice(_WORDS, size=_TOKENS)) for _ in range(_ROWS)]
    labels = generator.integers(0, len(model.plan.task.labels), _ROWS)
    return TrainingSet(model.prepare(texts, stages=("full",)), labels, np.arange(_ROWS), _ROWS)


def _ratio(one: Callable[[], None], other: Callable[[], None]) -> float:
    """Quotient of the medians of two calls timed in turns, after one unmeasured call each."""
    samples: tuple[list[float], list[float]] = ([], [])
    for turn in range(_TURNS + 1):
        for place, call in enumerate((one, other)):
            start = time.perf_counter()
            call()
            if turn:
                samples[place].append(time.perf_counter() - start)
    return statistics.median(samples[0]) / statistics.median(samples[1])
