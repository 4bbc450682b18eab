"""`make bench`: what privacy and the simulation cost, as ratios measured in one process.

Seconds on a shared machine say little; each figure is the quotient of two medians whose samples were taken in turns.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import build_optimizer, recording, set_gradient
from common.base_model import Base
from common.privacy.plan import PrivacyPlan
from common.randomness import SecretSource, public_generator
from common.trainable import TrainableModel
from server.evaluation import PublicEvaluator
from simulations.bench_secagg import secagg_figures
from simulations.bench_table import Figure, print_figures
from simulations.cli import find_scenario
from simulations.federation import Federated, Setting, federate
from simulations.notes import NotesConfig
from simulations.scenario import DataConfig, Scenario, load_scenario
from simulations.world import World, build_world, finish_plan, open_base

_ROWS = 64
_TOKENS = 64
_TURNS = 9
_STEPS = 3  # as in a round: hooks are put on once a round, not once a step
_WORDS = "the patient was seen again and did well after the first day of treatment with a new drug".split()


def main() -> None:
    """Measure, and print one line a figure."""
    scenario = load_scenario(find_scenario("demo"))
    figures = (*step_figures(scenario), *simulation_figures(scenario), *memory_figures(), *secagg_figures())
    print_figures("Cloister bench", figures)


def step_figures(scenario: Scenario) -> list[Figure]:
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
    """Median time of a round's DP steps over that of as many plain steps on the same rows."""
    # The step itself, whoever adds it up: one site's own steps are the same work, and need nobody else.
    open_sum = scenario.plan.secure_aggregation.model_copy(update={"masked": False})
    draft = scenario.plan.model_copy(update={"mode": "per-site", "secure_aggregation": open_sum})
    plan = finish_plan(draft, 1, base.identity)
    model = TrainableModel(base, plan, scenario.compute)
    data = _made_up_rows(model)
    # Every row is drawn, so that both steps see the same rows; the machinery around them is the real one.
    mechanism = replace(PrivacyPlan.from_terms(plan.privacy, 1), sampling_rate=1.0, unit="record")
    step = DpStep(mechanism, model, data, SecretSource())
    optimizer = build_optimizer(plan.optimizer, model, "full")

    def private() -> None:
        with recording(model) as gradients:
            for _ in range(_STEPS):
                set_gradient(model.parameters("full"), step.noisy_gradient(gradients, "full"))
                optimizer.step()

    def plain() -> None:
        for _ in range(_STEPS):
            optimizer.zero_grad(set_to_none=True)
            for batch in data.prepared.at("full").batches(np.arange(_ROWS), model.compute.tokens_per_batch):
                logits = model.module(batch.values, batch.mask)[torch.from_numpy(batch.places)]
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


def simulation_figures(scenario: Scenario) -> list[Figure]:
    """Whole simulation over the sum of its local compute, in a short run of the demo."""
    world = build_world(_short(scenario, hospitals=4, patients=100))
    with tempfile.TemporaryDirectory() as folder:
        federated = _federate(world, Path(folder))
    return [("whole simulation / its local compute", f"{federated.seconds / federated.local_seconds:.3f}", "<= 1.05")]


def _federate(world: World, folder: Path) -> Federated:
    """The run as `cloister-simulate run` does it, without the researcher's looks at test and training rows."""
    unit = world.plan.privacy.unit
    sets = {
        name: TrainingSet.of(part, world.model, unit)
        for name, part in zip(world.sites, world.splits.hospitals, strict=True)
    }
    validation = world.splits.validation
    evaluator = PublicEvaluator(world.model, world.model.prepare(validation.texts), validation.labels)
    return federate(Setting(world.plan, world.model, sets, evaluator, folder, identities=world.identities))


def _short(scenario: Scenario, hospitals: int, patients: int) -> Scenario:
    """The demo with few rounds, all of them with the adapter, and so many hospitals and patients."""
    adapter = scenario.plan.adapter.model_copy(update={"head_rounds": 0})
    plan = scenario.plan.model_copy(update={"rounds": 3, "adapter": adapter})
    notes = NotesConfig(hospitals=hospitals, patients_per_hospital=patients, validation_patients=10, test_patients=10)
    return scenario.model_copy(update={"plan": plan, "data": DataConfig(notes=notes)})


def memory_figures() -> list[Figure]:
    """Peak memory of the same patients shared out to 4 and to 16 hospitals, each in a process of its own."""
    few, many = (_peak_megabytes(hospitals) for hospitals in (4, 16))
    return [
        ("peak memory, 4 hospitals", f"{few:,.0f} MB", ""),
        ("peak memory, 16 hospitals, same patients", f"{many:,.0f} MB", ""),
        ("16 hospitals / 4 hospitals", f"{many / few:.3f}", "about 1"),
    ]


def _peak_megabytes(hospitals: int) -> float:
    command = [sys.executable, "-m", "simulations.bench", "--peak", str(hospitals)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this very module
    return float(done.stdout.split()[-1])


def _print_peak(hospitals: int) -> None:
    """Run the short demo over so many hospitals and print the process's peak memory in megabytes."""
    scenario = load_scenario(find_scenario("demo"))
    world = build_world(_short(scenario, hospitals, patients=320 // hospitals))
    with tempfile.TemporaryDirectory() as folder:
        _federate(world, Path(folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--peak":
        _print_peak(int(sys.argv[2]))
    else:
        main()
