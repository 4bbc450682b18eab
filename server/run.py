"""A whole run: rounds, refreshes, early stopping, checkpoints, and which model is the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from common.errors import CloisterError, ConfigError, UsageError
from common.plan import Plan
from common.transport import Transport
from server.aggregation.base import Vector
from server.aggregation.choice import build_aggregator
from server.checkpoint import load_checkpoint, save_checkpoint
from server.failures import check_every_group_moved, check_sites_answer, check_something_was_applied
from server.gather import Gatherer
from server.masked_round import MaskedGatherer
from server.plain_round import PlainGatherer
from server.round import run_round
from server.running_sum import SITE_LIMIT
from server.state import Basis, BestModel, Evaluation, GlobalModel, RoundSummary, ServerState
from server.stopping import better, is_due, patience_ran_out

_DIVERGED_HINT = "lower the learning rates, or raise the divisor; the budget already spent stays spent"

Choice = Literal["last", "best", "averaged"]
Observer = Callable[[RoundSummary], None]
Refresh = Callable[[Vector, Basis], tuple[Vector, Basis]]


class Evaluator(Protocol):
    """Judges global models on a set that is public to the coordinator."""

    def evaluate(self, weights: Vector, basis: Basis) -> Evaluation:
        """Figures of a model with weights `[d]` and basis `[b]`; the same model gives the same figures."""
        ...


@dataclass(frozen=True, eq=False)
class RunSetup:
    """What a run is made of.

    Args:
        plan: The plan that every site holds.
        sites: Names of the sites, `plan.sites` of them.
        transport: How they are reached.
        start: Model before round 1; the same on every attempt.
        groups: Slices of the trained values by name (`adapter`, `head`); every group must have moved at the end.
        evaluator: None where the coordinator has no public validation set.
        refresh: Rewrites the factors every `plan.adapter.svd_refresh_rounds` rounds; needed when that is above 0.
        observer: Told of a round after its checkpoint is on disk.
    """

    plan: Plan
    sites: tuple[str, ...]
    transport: Transport
    start: GlobalModel
    groups: Mapping[str, slice]
    evaluator: Evaluator | None = None
    refresh: Refresh | None = None
    observer: Observer = field(default=lambda _: None)


@dataclass(frozen=True, eq=False)
class RunOutcome:
    """The result of a run.

    Args:
        model: The chosen model.
        chosen: Which one that is.
        chosen_round: The round it comes from; of an average, its last.
        validation: Figures of the chosen model; None without an evaluator.
        rounds: Every round, in order.
        stopped_early: Whether patience ran out before `plan.rounds`.
    """

    model: GlobalModel
    chosen: Choice
    chosen_round: int
    validation: Evaluation | None
    rounds: tuple[RoundSummary, ...]
    stopped_early: bool


def run(setup: RunSetup, folder: Path, *, resume: bool = False) -> RunOutcome:
    """Run the plan to its end, or go on from the last finished round.

    Guarantees:
        A round is finished when its checkpoint is on disk; only then is the observer told. A run that was killed and
        resumed, any number of times, ends with the model of an undisturbed run if its sites answer alike.

    Edge cases:
        `resume` in a folder without a checkpoint starts at round 1: no round was finished. Resuming a finished run
        gives its outcome again. A run that ended for lack of sites may be resumed and goes on with the next round.

    Args:
        setup: Plan, sites, transport, evaluator and callbacks.
        folder: Run folder; must exist. Holds the checkpoint.
        resume: Whether a checkpoint there is to be continued.

    Raises:
        ConfigError: When setup and plan contradict each other.
        UsageError: When the folder holds a run and `resume` is False.
        IntegrityError: When the checkpoint is damaged or of another plan.
        TooFewSitesError: After several rounds in a row, or a whole run, without enough sites (server.failures).
        SecureAggregationError: The same, when secure aggregation gave up in each of those rounds.
        CloisterError: When the model diverged, or a group of trained values did not move.
    """
    check_setup(setup)
    state = _first_state(setup, folder, resume)
    gatherer = _gatherer(setup, folder)
    while not is_finished(setup.plan, state.history):
        state = _next_state(setup, state, gatherer)
        save_checkpoint(folder, state, setup.plan.digest)
        setup.observer(state.history[-1])
        check_sites_answer(setup.plan, state.history)
    check_something_was_applied(setup.plan, state.history)
    check_every_group_moved(setup.groups, state.history)
    return _outcome(setup, state)


def _gatherer(setup: RunSetup, folder: Path) -> Gatherer:
    """How a round's sum is brought in: in the sum alone where the plan masks, else answer by answer."""
    if setup.plan.masked:
        return MaskedGatherer(setup.plan, setup.sites, setup.transport, folder)
    return PlainGatherer(setup.plan.digest, setup.sites, setup.transport)


def check_setup(setup: RunSetup) -> None:
    """Refuse what cannot run, before anybody is asked to take part.

    Raises:
        ConfigError: When setup and plan contradict each other.
    """
    plan, count = setup.plan, len(setup.sites)
    if count != plan.sites or len(set(setup.sites)) != count:
        raise ConfigError(
            f"the plan is for {plan.sites} different sites, and {count} were named: {', '.join(setup.sites)}"
        )
    if plan.masked and set(setup.sites) != set(plan.roster):
        raise ConfigError("the plan's roster names other sites than those that were named")
    if not plan.minimum_sites <= count <= SITE_LIMIT:
        raise ConfigError(
            f"`minimum_sites` is {plan.minimum_sites} and there are {count} sites; at most {SITE_LIMIT} can be added up"
        )
    if plan.adapter.svd_refresh_rounds and setup.refresh is None:
        raise ConfigError("`adapter.svd_refresh_rounds` is set, but this coordinator cannot refactor the adapter")
    if plan.stopping.patience_rounds and setup.evaluator is None:
        raise ConfigError(
            "`stopping.patience_rounds` needs a public validation set, and there is none",
            hint="name a validation set, or set stopping.patience_rounds = 0",
        )


def _first_state(setup: RunSetup, folder: Path, resume: bool) -> ServerState:
    saved = load_checkpoint(folder, setup.plan.digest)
    if saved is None:
        moments = build_aggregator(setup.plan, setup.groups, 1).initial(len(setup.start.weights))
        return ServerState(setup.start, moments)
    if not resume:
        raise UsageError(
            f"folder {folder} already holds {saved.round_number} finished rounds of this plan",
            hint="pass --resume to go on from there, or choose another folder",
        )
    return saved


def _next_state(setup: RunSetup, state: ServerState, gatherer: Gatherer) -> ServerState:
    """One round and everything that follows from it, up to what the checkpoint holds."""
    aggregator = build_aggregator(setup.plan, setup.groups, state.round_number + 1)
    result = run_round(setup.plan, state, gatherer, aggregator, setup.groups)
    if not result.summary.applied:
        return replace(state, history=(*state.history, result.summary))
    started = time.perf_counter()
    model = _refreshed(setup, GlobalModel(result.weights, state.model.basis), result.summary.round_number)
    evaluation = _judge(setup, state.history, model, result.summary.round_number)
    seconds = result.summary.seconds + time.perf_counter() - started
    summary = replace(result.summary, validation=evaluation, seconds=seconds)
    return ServerState(
        model=model,
        moments=result.moments,
        recent=_last((*state.recent, model.weights), setup.plan.server.average_rounds),
        best=_best(setup.plan, state.best, summary, model),
        history=(*state.history, summary),
    )


def _best(plan: Plan, best: BestModel | None, summary: RoundSummary, model: GlobalModel) -> BestModel | None:
    if summary.validation is None:
        return best
    return better(plan, best, BestModel(summary.round_number, summary.validation.loss, model))


def _last(values: tuple[Vector, ...], count: int) -> tuple[Vector, ...]:
    return values[len(values) - min(count, len(values)) :]


def _refreshed(setup: RunSetup, model: GlobalModel, round_number: int) -> GlobalModel:
    """The model with new factors when a refresh is due; the last round needs none, since no site trains after it."""
    every = setup.plan.adapter.svd_refresh_rounds
    if setup.refresh is None or not every or round_number % every or round_number == setup.plan.rounds:
        return model
    weights, basis = setup.refresh(model.weights, model.basis)
    return GlobalModel(weights.astype(np.float64), basis.astype(np.float32))


def _judge(
    setup: RunSetup, history: tuple[RoundSummary, ...], model: GlobalModel, round_number: int
) -> Evaluation | None:
    """Figures of a round's model where they are due; a model that diverged ends the run in any round."""
    name = f"the global model of round {round_number}"
    _check_finite(model, name)
    return _evaluate(setup, model, name) if is_due(setup.plan, history, round_number) else None


def _check_finite(model: GlobalModel, name: str) -> None:
    """End a run that diverged before more budget is spent on it; sites get float32, so that is what must be finite."""
    if not (np.abs(model.weights) < np.finfo(np.float32).max).all():
        raise CloisterError(f"{name} has values that are not finite", _DIVERGED_HINT)


def _evaluate(setup: RunSetup, model: GlobalModel, name: str) -> Evaluation | None:
    """Figures of a model; one that diverged ends the run."""
    if setup.evaluator is None:
        return None
    evaluation = setup.evaluator.evaluate(model.weights, model.basis)
    if not np.isfinite(evaluation.loss):
        raise CloisterError(f"{name} has a validation loss of {evaluation.loss}", _DIVERGED_HINT)
    return evaluation


def is_finished(plan: Plan, history: tuple[RoundSummary, ...]) -> bool:
    """Whether no round is left to run."""
    return len(history) >= plan.rounds or patience_ran_out(plan, history)


def _outcome(setup: RunSetup, state: ServerState) -> RunOutcome:
    """The result: the average where the plan asks for one, else the best where it was judged, else the last."""
    rounds = state.history
    stopped = len(rounds) < setup.plan.rounds
    if state.best is not None and not state.recent:
        number = state.best.round_number
        return RunOutcome(state.best.model, "best", number, rounds[number - 1].validation, rounds, stopped)
    model, chosen, name = _final_model(state)
    number = _last_applied(rounds)
    validation = rounds[number - 1].validation if chosen == "last" else None
    # An average was never judged, and the last model was not where the last rounds were lost.
    judged = _evaluate(setup, model, name) if validation is None else validation
    return RunOutcome(model, chosen, number, judged, rounds, stopped)


def _final_model(state: ServerState) -> tuple[GlobalModel, Choice, str]:
    if state.recent:
        average = GlobalModel(np.mean(state.recent, axis=0), state.model.basis)
        return average, "averaged", "the average of the last global models"
    return state.model, "last", "the last global model"


def _last_applied(rounds: tuple[RoundSummary, ...]) -> int:
    return max(summary.round_number for summary in rounds if summary.applied)
