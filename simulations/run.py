"""`cloister-simulate run`: from a scenario to a finished run folder.

scenario.json              what was asked, complete; --resume reads it
plan.json                  the plan and its digest
checkpoint.safetensors     the coordinator's last finished round
session.safetensors        the keys and sealed shares of the running session, where updates are masked
pending-sum.safetensors    the last sum that waited for its masks
sites/NAME/                each site's own book, identity and session secret
adapter/                   the result: an ordinary PEFT folder and the head
learning-curve.png, model-card.md
results.json               written last: a folder without it is not finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from client.keys import load_or_create_identity, save_identity
from client.training.dp_step import TrainingSet
from client.training.self_test import check_gradients
from common.canonical import canonical_bytes
from common.errors import CloisterError, ConfigError, IntegrityError, TryAgainError, UsageError
from common.files import write_durably
from common.plan import Plan
from common.records.records import Records
from server.checkpoint import load_checkpoint
from server.evaluation import PublicEvaluator
from server.report import is_finished, write_report
from server.run_files import RESULTS_NAME
from simulations.check import check_data, refuse_unfit
from simulations.federation import SITES_NAME, Engine, Federated, InProcess, Setting, federate
from simulations.measure import WatchedEvaluator
from simulations.public_start import OnStep
from simulations.run_folder import PLAN_NAME, SCENARIO_NAME, alone, read_scenario, read_table
from simulations.run_report import build_report, last_lines, round_teller
from simulations.scenario import Scenario
from simulations.view import phases, watch
from simulations.world import Identities, MakeIdentities, World, build_world, draw_identities

ADAPTER_NAME = "adapter"
_STEPS_TOLD = 10


@dataclass(frozen=True)
class Finished:
    """A run folder that is complete, and the last lines to show."""

    folder: Path
    summary: str


def start_run(scenario: Scenario, console: Console, engine: Engine | None = None) -> Finished:
    """Make a run folder and run the scenario in it.

    Args:
        scenario: What to run.
        console: Where progress is shown.
        engine: Where the hospitals live; in this process where left out. It is no part of the run folder.

    Raises:
        ConfigError: When a check fails; no folder is left then.
        CloisterError: As `server.run.run`; the folder stays and can be resumed.
    """
    world = _open_world(scenario, console)
    folder = new_folder(Path(scenario.output), world.plan.name)
    write_durably(folder / SCENARIO_NAME, canonical_bytes(scenario.model_dump(mode="json")))
    _save_identities(folder, world)
    _write_plan(folder, world.plan)
    return _run_in(folder, world, console, engine or InProcess(), resume=False)


def resume_run(folder: Path, console: Console, engine: Engine | None = None) -> Finished:
    """Go on with a run that was stopped, at its last finished round, on any engine.

    Raises:
        UsageError: When the folder holds no run.
        IntegrityError: When its plan is not the one that was started, or a file of it is damaged.
    """
    if not (folder / SCENARIO_NAME).is_file():
        raise UsageError(f"{folder} is not a run folder", hint="give a folder that `cloister-simulate run` has made")
    if is_finished(folder):
        return Finished(folder, f"{folder} is finished already; nothing to do")
    world = _open_world(read_scenario(folder), console, lambda sites: _saved_identities(folder, sites))
    saved = folder / PLAN_NAME
    if saved.is_file() and read_table(saved).get("digest") != world.plan.digest:
        raise IntegrityError(
            f"the plan of {folder} is not the one that its scenario gives now",
            hint="the base model or the package has changed since; start a new run",
        )
    _write_plan(folder, world.plan)
    return _run_in(folder, world, console, engine or InProcess(), resume=True)


def _save_identities(folder: Path, world: World) -> None:
    for site, identity in world.identities.items():
        (folder / SITES_NAME / site).mkdir(parents=True)
        save_identity(folder / SITES_NAME / site, identity)


def _saved_identities(folder: Path, sites: Iterable[str]) -> Identities:
    """The identities that the run began with; a site whose key is lost gets another, and the plan shows it."""
    identities = {}
    for site in sites:
        (folder / SITES_NAME / site).mkdir(parents=True, exist_ok=True)
        identities[site] = load_or_create_identity(folder / SITES_NAME / site)
    return identities


def _open_world(scenario: Scenario, console: Console, make_identities: MakeIdentities = draw_identities) -> World:
    with phases(console) as say:
        say("reading data and loading the base model")
        world = build_world(scenario, _told_now_and_then(say), make_identities)
    refuse_unfit(check_data(world.splits, scenario))
    if world.plan.privacy.noise_multiplier == 0:
        console.print("warning: privacy.noise_multiplier is 0: this run has no privacy at all", style="yellow")
    with phases(console) as say:
        say("checking per-record gradients against a plain loop")
        check_gradients(world.model)
    return world


def _told_now_and_then(say: Callable[[str], None]) -> OnStep:
    def on_step(done: int, total: int) -> None:
        if done % _STEPS_TOLD == 0 or done in {1, total}:
            say(f"making the public start, once: step {done} of {total}")

    return on_step


def new_folder(output: Path, name: str) -> Path:
    """Make a folder below `output` that is named after the study and the time.

    Raises:
        ConfigError: When nothing can be made there.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        return _free_folder(output, name)
    except OSError as error:
        raise ConfigError(
            f"output folder {output} cannot be used: {type(error).__name__}", hint="choose another with --output"
        ) from None


def _free_folder(output: Path, name: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        folder = output / f"{name}-{stamp}{suffix}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise TryAgainError(f"no free folder name below {output}")


def _write_plan(folder: Path, plan: Plan) -> None:
    document = {"digest": plan.digest, "plan": plan.model_dump(mode="json")}
    write_durably(folder / PLAN_NAME, json.dumps(document, indent=2, sort_keys=True).encode())


def _run_in(folder: Path, world: World, console: Console, engine: Engine, *, resume: bool) -> Finished:
    with alone(folder):
        try:
            setting, done = _prepare(folder, world, console, engine), _rounds_done(folder, world.plan)
            with watch(console, world.sites, world.plan.rounds, done) as view:
                teller = round_teller(view, world.plan)
                federated = federate(setting, view, teller, resume=resume, engine=engine)
            return _finish(folder, world, setting, federated)
        except KeyboardInterrupt:
            raise CloisterError(
                "the run was interrupted", hint=f"go on with: cloister-simulate run --resume {folder}"
            ) from None


def _rounds_done(folder: Path, plan: Plan) -> int:
    saved = load_checkpoint(folder, plan.digest)
    return 0 if saved is None else saved.round_number


def _prepare(folder: Path, world: World, console: Console, engine: Engine) -> Setting:
    """Compute once what does not change: the frozen layers' outputs of every party's texts that is needed here."""
    sets, watched = {}, world.scenario.measure.training_rows > 0
    with phases(console) as say:
        if engine.in_process or watched:
            sets = _training_sets(world, say)
        say("computing the frozen layers for the public sets")
        evaluator = watched_evaluator(world, tuple(sets.values()))
        if not engine.in_process:
            say("starting worker processes, where each hospital is prepared before its first answer")
    faults, seed = world.scenario.network, world.scenario.seed
    return Setting(world.plan, world.model, sets, evaluator, folder, faults, seed, world.identities, sites=world.sites)


def _training_sets(world: World, say: Callable[[str], None]) -> dict[str, TrainingSet]:
    unit, sets = world.plan.privacy.unit, {}
    for name, records in zip(world.sites, world.splits.hospitals, strict=True):
        say(f"computing the frozen layers for {name}")
        sets[name] = TrainingSet.of(records, world.model, unit)
    return sets


def watched_evaluator(world: World, sets: tuple[TrainingSet, ...]) -> WatchedEvaluator:
    """The coordinator's validation, with what the researcher watches besides."""
    measure = world.scenario.measure
    test = _public(world, world.splits.test)
    return WatchedEvaluator(
        model=world.model,
        validation=_public(world, world.splits.validation),
        test=test,
        test_every_round=measure.test_every_round,
        training=sets if measure.training_rows else (),
        training_rows=measure.training_rows,
    )


def _public(world: World, records: Records) -> PublicEvaluator:
    return PublicEvaluator(world.model, world.model.prepare(records.texts), records.labels)


def _finish(folder: Path, world: World, setting: Setting, federated: Federated) -> Finished:
    model = federated.outcome.model
    report = build_report(world, setting.evaluator, federated)
    (folder / RESULTS_NAME).unlink(missing_ok=True)  # first: what follows replaces what it vouches for
    shutil.rmtree(folder / ADAPTER_NAME, ignore_errors=True)
    world.model.export(world.base_name, model.weights, model.basis, folder / ADAPTER_NAME)
    write_report(report, folder)
    return Finished(folder, last_lines(folder, report))
