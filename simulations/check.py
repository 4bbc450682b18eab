"""Before training: does the plan fit the model and the data, and what will it cost?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from client.data.checks import check_records, check_splits, check_step
from client.training.loop import recording
from common.adapters.fitness import check_architecture, check_trained
from common.base_model import Base
from common.errors import CloisterError, ConfigError, Problem
from common.findings import Finding
from common.plan_findings import check_masks, check_privacy, size_text, time_text
from common.records.records import merge
from common.trainable import TrainableModel
from simulations.scenario import Scenario
from simulations.world import Splits, World, draw_identities, finish_plan, load_splits, open_base, site_names

_PROBE_TEXTS = 24


def check_data(splits: Splits, scenario: Scenario) -> tuple[Finding, ...]:
    """Findings about each hospital's rows and about rows that two parts share; for the researcher's eyes."""
    privacy, labels = scenario.plan.privacy, scenario.plan.task.labels
    alone = scenario.plan.mode == "per-site"
    found: list[Finding] = []
    for name, records in zip(site_names(len(splits.hospitals)), splits.hospitals, strict=True):
        step = check_step(records.unit_count(privacy.unit), privacy) if alone else ()
        for finding in (*check_records(records, labels, privacy.unit), *step):
            found.append(replace(finding, subject=f"{name}: {finding.subject}"))
    if not alone:
        units = sum(part.unit_count(privacy.unit) for part in splits.hospitals)
        found += [
            replace(finding, subject=f"all hospitals: {finding.subject}") for finding in check_step(units, privacy)
        ]
    if scenario.data.files is not None and not scenario.data.files.validation:
        found.append(_validation_finding(scenario.data.files.validation_fraction))
    parts = {"train": merge(splits.hospitals), "validation": splits.validation, "test": splits.test}
    return (*found, *check_splits(parts))


def _validation_finding(share: float) -> Finding:
    sentence = f"{share:.0%} of train's patients are set apart for validation, and count as public"
    return Finding("warn", "validation", sentence, "name public files in `data.files.validation`")


def check_scenario(scenario: Scenario) -> tuple[Finding, ...]:
    """Every finding about a scenario: data, architecture, privacy, cost. No private row is trained on.

    A public start that is not there yet is made, since what it gives is what would be trained.
    """
    splits = load_splits(scenario)
    found = list(check_data(splits, scenario))
    base = open_base(scenario)
    architecture = check_architecture(base.encoder, scenario.plan.adapter)
    found += architecture
    if any(finding.level == "fail" for finding in architecture):
        return tuple(found)
    return (*found, *_check_model(scenario, splits, base))


def _check_model(scenario: Scenario, splits: Splits, base: Base) -> tuple[Finding, ...]:
    try:
        sites = site_names(len(splits.hospitals))
        plan = finish_plan(scenario.plan, len(sites), base.identity, draw_identities(sites))
        model = TrainableModel(base, plan, scenario.compute)
    except CloisterError as error:
        problems = error.problems if isinstance(error, ConfigError) else ()
        told = [Finding("fail", problem.where, problem.rule, problem.hint) for problem in problems]
        return tuple(told) or (Finding("fail", "plan", error.message, error.hint),)
    world = World(scenario, plan, base.identity.name, model, splits)
    return (
        *check_trained(model.module, model.spec.dimension, prefix_is_cached=model.prefix_is_cached),
        check_privacy(plan),
        check_masks(plan),
        *estimate_cost(world),
    )


def estimate_cost(world: World) -> Iterator[Finding]:
    """Estimated time, bytes and memory of the run, from one timed batch of made-up text."""
    seconds = estimate_seconds(world)
    yield Finding(
        "pass",
        "time",
        f"about {time_text(seconds)} of computing, measured on one batch; faults and reports on top",
    )
    message = 4 * world.model.spec.dimension
    total = 2 * message * len(world.sites) * world.plan.rounds
    yield Finding("pass", "bytes", f"{size_text(message)} each way a round and hospital, {size_text(total)} in all")
    yield Finding("pass", "memory", f"about {size_text(estimate_bytes(world))} for base, kept features and gradients")


def estimate_seconds(world: World) -> float:
    """Expected computing time of all hospitals together."""
    per_token_below, per_token_above = _seconds_per_token(world.model)
    tokens = float(sum(_tokens(world.model, part.texts) for part in world.splits.hospitals))
    public = float(_tokens(world.model, world.splits.validation.texts) + _tokens(world.model, world.splits.test.texts))
    full_rounds = sum(world.model.stage(number) == "full" for number in range(1, world.plan.rounds + 1))
    judged = full_rounds / world.plan.stopping.judge_rounds
    steps = full_rounds * world.plan.local_steps
    trained = steps * world.plan.privacy.sampling_rate * tokens * per_token_above
    return per_token_below * (tokens + public) + trained + judged * public * per_token_above / 3


def _seconds_per_token(model: TrainableModel) -> tuple[float, float]:
    """Seconds a token for the frozen part, and for a per-record gradient of the trained part."""
    text = " ".join(["the patient was seen again and did well"] * 4)
    start = time.perf_counter()
    prepared = model.prepare([text] * _PROBE_TEXTS)
    below = time.perf_counter() - start
    stage = model.stage(model.plan.rounds)
    features = prepared.at(stage)
    batch = next(features.compact_batches(np.arange(_PROBE_TEXTS), 1 << 30))
    labels = torch.zeros(_PROBE_TEXTS, dtype=torch.int64, device=model.compute.device)
    start = time.perf_counter()
    with recording(model) as gradients:
        gradients(batch, labels, model.parameters(stage), pooled=stage == "head")
    above = time.perf_counter() - start
    tokens = _PROBE_TEXTS * min(len(text.split()), model.plan.task.max_tokens)
    return below / tokens, above / tokens


def _tokens(model: TrainableModel, texts: tuple[str, ...]) -> float:
    """About how many tokens: words times 1.4, each text cut at the plan's length."""
    return float(sum(min(1.4 * len(text.split()) + 2, model.plan.task.max_tokens) for text in texts))


def estimate_bytes(world: World) -> float:
    """Expected memory of base, kept features and one step's gradients."""
    model, compute = world.model, world.scenario.compute
    base = sum(tensor.numel() * tensor.element_size() for tensor in model.peft.parameters())
    kept = 0.0
    if model.prefix_is_cached and "full" in model.stages:
        width = model.module.head.in_features // world.plan.task.pool_layers * (2 if compute.dtype == "bfloat16" else 4)
        parts = (*world.splits.hospitals, world.splits.validation, world.splits.test)
        kept = width * sum(_tokens(model, part.texts) for part in parts)
    drawn = world.plan.privacy.sampling_rate * max(
        part.unit_count(world.plan.privacy.unit) for part in world.splits.hospitals
    )
    step = min(256e6, 8 * drawn * model.spec.dimension) * 2
    return float(base + kept + step)


def refuse_unfit(findings: tuple[Finding, ...]) -> None:
    """Stop a run that a check has failed.

    Raises:
        ConfigError: With one problem a failed finding.
    """
    failed = [finding for finding in findings if finding.level == "fail"]
    if failed:
        problems = tuple(Problem(finding.subject, finding.sentence, hint=finding.mend) for finding in failed)
        raise ConfigError(f"the scenario does not fit: {len(failed)} check(s) failed", problems)
