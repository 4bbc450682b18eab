"""Before a plan is signed: does it fit its base, what does it promise, and what will it cost?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.base_files import file_names, find_base, identify_base
from common.envelope import MESSAGE_LIMIT_BYTES, envelope_bound
from common.errors import CloisterError, ConfigError
from common.findings import Finding
from common.plan import Plan, PlanDraft
from common.plan_findings import check_masks, check_privacy, size_text, time_text
from common.wire import HEADER_LIMIT_BYTES as WIRE_HEADER_BYTES
from server.config import CoordinatorConfig
from server.planning import finish_plan
from server.public_records import check_public_data

if TYPE_CHECKING:
    from common.trainable import TrainableModel

_PROBE_TEXTS = 8
_BACKWARD = 3.0
"""A per-record gradient takes about three times as long as the forward pass."""
_EXCHANGES_SECONDS = 0.5
"""What a round takes beside its computing, by measurement on one machine; a slow network adds to it."""


@dataclass(frozen=True)
class CheckedPlan:
    """A finished plan, and what was found about it."""

    plan: Plan
    findings: tuple[Finding, ...]

    @property
    def fits(self) -> bool:
        """Whether it may be signed."""
        return all(finding.level != "fail" for finding in self.findings)


def check_plan(draft: PlanDraft, roster: Mapping[str, str], config: CoordinatorConfig) -> CheckedPlan:
    """Finish a plan for these sites, and judge it.

    Args:
        draft: As a person wrote it.
        roster: Public key of each site, by name.
        config: Names the base.

    Raises:
        ConfigError: When it cannot be finished: no base, no sites, or noise out of reach.
    """
    if config.base is None:
        raise ConfigError("no base model is set", hint="set `base` in coordinator.toml to a base model's folder")
    folder = find_base(config.base)
    identity = identify_base(folder, config.base_name)
    file_names(identity)
    plan = finish_plan(draft, len(roster), identity, roster)
    return CheckedPlan(plan, tuple(_findings(plan, folder, config)))


def _findings(plan: Plan, folder: Path, config: CoordinatorConfig) -> Iterator[Finding]:
    yield Finding("pass", "sites", f"{plan.sites}: {', '.join(sorted(plan.roster))}")
    yield _rounds(plan)
    yield check_privacy(plan)
    yield check_masks(plan)
    yield from _model_findings(plan, folder, config)
    yield from check_public_data(plan, config.public)


def _model_findings(plan: Plan, folder: Path, config: CoordinatorConfig) -> Iterator[Finding]:
    """What only the loaded base shows; a plan that cannot be finished is refused without torch."""
    from common.adapters.fitness import check_architecture, check_trained  # noqa: PLC0415 - torch
    from common.base_model import load_base  # noqa: PLC0415 - as above
    from common.trainable import TrainableModel  # noqa: PLC0415 - as above

    base = load_base(folder, plan.base.name, config.compute)
    architecture = check_architecture(base.encoder, plan.adapter)
    yield from architecture
    if any(finding.level == "fail" for finding in architecture):
        return
    try:
        model = TrainableModel(base, plan, config.compute)
    except CloisterError as error:
        yield Finding("fail", "model", error.message, error.hint)
        return
    yield from check_trained(model.module, model.spec.dimension, prefix_is_cached=model.prefix_is_cached)
    yield _bytes(plan, model.spec.dimension, sum(path.stat().st_size for path in _files(folder, plan)))
    yield from _passage(model.spec.dimension, config)
    yield _time(plan, model)


def _rounds(plan: Plan) -> Finding:
    least = max(plan.minimum_sites, plan.parameters.threshold) if plan.masked else plan.minimum_sites
    sentence = f"{plan.rounds}, each of at least {least} of {plan.sites} sites, mode {plan.mode}"
    return Finding("pass", "rounds", sentence)


def _files(folder: Path, plan: Plan) -> tuple[Path, ...]:
    return tuple(folder / name for name in plan.base.files)


def _bytes(plan: Plan, dimension: int, base_bytes: int) -> Finding:
    message = 4 * dimension
    total = 2 * message * plan.sites * plan.rounds
    sentence = (
        f"{size_text(message)} each way a round and site, {size_text(total)} in all; "
        f"the base has {size_text(base_bytes)}, for each site that lacks it"
    )
    return Finding("pass", "bytes", sentence)


def _passage(dimension: int, config: CoordinatorConfig) -> Iterator[Finding]:
    """Whether a round's message gets through."""
    message = envelope_bound(4 * dimension + WIRE_HEADER_BYTES)
    if message > MESSAGE_LIMIT_BYTES:
        mend = "train fewer values: a lower rank, fewer layers"
        yield Finding("fail", "bytes", f"a node takes messages of up to {size_text(MESSAGE_LIMIT_BYTES)}", mend)
    elif message > config.gateway.body_limit_bytes:
        mend = f"set gateway.body_limit_bytes in coordinator.toml to {message} or more, or train fewer values"
        yield Finding("fail", "bytes", f"the gateway takes up to {size_text(config.gateway.body_limit_bytes)}", mend)


def _time(plan: Plan, model: TrainableModel) -> Finding:
    once, step = _seconds_a_text(model)
    sharing = plan.sites if plan.mode == "distributed" else 1
    drawn = plan.privacy.divisor / sharing
    expected = drawn / plan.privacy.sampling_rate
    training = plan.steps * drawn * step
    total = expected * once + training + plan.rounds * _EXCHANGES_SECONDS
    sentence = (
        f"about {time_text(total)} on sites as fast as this machine, {time_text(training / plan.rounds)} a round, if "
        f"each has {math.ceil(expected)} {plan.privacy.unit}s with one text of {plan.task.max_tokens} tokens"
    )
    return Finding("pass", "time", sentence)


def _seconds_a_text(model: TrainableModel) -> tuple[float, float]:
    """Seconds for the frozen layers over a text, and for its gradient in a step; of a text of full length."""
    text = " ".join(["patient"] * model.plan.task.max_tokens)
    model.prepare([text])  # the first call is slower than those after it
    start = time.perf_counter()
    prepared = model.prepare([f"{text} {number}" for number in range(_PROBE_TEXTS)])
    between = time.perf_counter()
    stage = model.stage(model.plan.rounds)
    model.logits(prepared.at(stage), stage)
    end = time.perf_counter()
    return (between - start) / _PROBE_TEXTS, _BACKWARD * (end - between) / _PROBE_TEXTS
