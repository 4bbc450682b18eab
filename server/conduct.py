"""One run from its signed plan to its result, whatever carries the messages: gather, train, report, say goodbye.

runs/NAME-DIGEST/
    signed-plan.json           the plan as every site holds it
    progress.jsonl             what happened, for `run` and `status`
    checkpoint.safetensors     the last finished round
    session.safetensors, pending-sum.safetensors
    adapter/                   the result: an ordinary PEFT folder and the head
    learning-curve.png, model-card.md
    results.json               written last: a folder without it is not finished
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import structlog

from common.adapters.lora import refactor
from common.audit import AuditLog
from common.audit_events import RoundEnded, RunBegan, RunEnded
from common.base_files import find_base, find_copy
from common.base_model import load_base
from common.errors import CloisterError, ConfigError, IntegrityError
from common.privacy.accountant import epsilon, epsilon_by_round
from common.privacy.mechanism import mechanism_of
from common.signed_plan import SignedPlan
from common.trainable import TrainableModel
from common.transport import Transport
from server.attendance import Attendance
from server.base_store import BaseStore
from server.checkpoint import load_checkpoint
from server.config import CoordinatorConfig
from server.gathering import Gathering, dismiss
from server.progress import PhaseProgress, Progress, RoundProgress
from server.public_data import PublicSets, open_public_sets
from server.report import write_report
from server.results import RunReport, SitePrivacy
from server.run import Refresh, RunOutcome, RunSetup, check_setup, is_finished, run
from server.run_files import ADAPTER_NAME, RESULTS_NAME
from server.state import GlobalModel, RoundSummary

_log = structlog.get_logger()

_PACKAGES = ("cloister", "torch", "transformers", "peft", "opacus", "dp-accounting", "flwr")


@dataclass(frozen=True, eq=False, repr=False)
class RunParts:
    """What a run is conducted with.

    Attributes:
        signed: The plan.
        config: The coordinator's settings.
        folder: The run's folder; must exist.
        transport: How the sites of the plan's roster are reached.
        audit: Where the coordinator's events are written down.
        resume: Whether to go on from the folder's checkpoint.
        enough: Sites without which no round can succeed.
        wait_for_all: Whether the first round waits for sites that may still come when enough are ready.
    """

    signed: SignedPlan
    config: CoordinatorConfig
    folder: Path
    transport: Transport
    audit: AuditLog
    enough: int
    resume: bool = False
    wait_for_all: bool = True


def conduct(parts: RunParts) -> RunReport:
    """Run a plan to its end.

    Guarantees:
        The audit log says how it ended, whatever error ends it. Base, settings, public records and checkpoint are in
        order before a hospital is asked, for one that is ready has set aside its budget. Once the result is written,
        nothing makes it a failure.

    Edge cases:
        A run whose last round is finished asks nobody: only its result is written.

    Raises:
        CloisterError: As `Gathering.run` and `server.run.run`; the folder stays and can be resumed.
    """
    try:
        report = _conduct(parts, Progress(parts.folder))
    except Exception:
        with suppress(CloisterError, OSError):  # what ended the run must not be hidden by a log that is full
            parts.audit.record(RunEnded(plan=parts.signed.digest, outcome="failed"))
        raise
    parts.audit.record(RunEnded(plan=parts.signed.digest, outcome="finished"))
    return report


def _conduct(parts: RunParts, progress: Progress) -> RunReport:
    started = time.perf_counter()
    plan = parts.signed.plan
    folder = find_plan_base(parts.config, parts.signed)
    progress.tell(PhaseProgress("preparing"))
    model = TrainableModel(load_base(folder, plan.base.name, parts.config.compute), plan, parts.config.compute)
    public = open_public_sets(parts.config.public, model)
    setup = _setup(parts, model, public, progress)
    check_setup(setup)
    history = _history(parts)
    if not is_finished(plan, history):
        progress.tell(PhaseProgress("gathering"))
        gathering = Gathering(parts.signed, parts.transport, BaseStore(folder, plan), parts.enough, progress.tell)
        gathering.run(parts.config.waiting.gathering_seconds, wait_for_all=parts.wait_for_all)
    progress.tell(PhaseProgress("training"))
    parts.audit.record(RunBegan(plan=parts.signed.digest, next_round=len(history) + 1))
    outcome = run(setup, parts.folder, resume=parts.resume)
    report = _report(parts, model, public, outcome, time.perf_counter() - started)
    _write_result(parts, model, report)
    _say_goodbye(parts)
    progress.tell(PhaseProgress("finished"))
    return report


def _say_goodbye(parts: RunParts) -> None:
    """The result is there; sites that do not hear of it lose nothing."""
    try:
        dismiss(parts.signed, parts.transport, "finished", parts.signed.plan.roster)
    except CloisterError as error:
        _log.warning("sites were not told that the run is over", reason=error.message)


def find_plan_base(config: CoordinatorConfig, signed: SignedPlan) -> Path:
    """The folder of a plan's base, compared by hashes.

    Raises:
        ConfigError: When the settings name none.
        IntegrityError: When the folder is not the plan's base any more.
    """
    if config.base is None:
        raise ConfigError(
            "no base model is set", hint="set `base` in coordinator.toml to the folder of the plan's base"
        )
    folder = find_base(config.base)
    if find_copy([config.base], signed.plan.base) is None:
        raise IntegrityError(
            f"{folder} is not the base model that the plan was signed with",
            hint="restore that folder, or sign a new plan",
        )
    return folder


def _history(parts: RunParts) -> tuple[RoundSummary, ...]:
    saved = load_checkpoint(parts.folder, parts.signed.digest)
    return () if saved is None else saved.history


def _setup(parts: RunParts, model: TrainableModel, public: PublicSets, progress: Progress) -> RunSetup:
    plan, attendance = parts.signed.plan, Attendance(parts.transport)
    return RunSetup(
        plan=plan,
        sites=tuple(sorted(plan.roster)),
        transport=attendance,
        start=GlobalModel(model.start.astype(np.float64), np.zeros(0, dtype=np.float32)),
        groups=model.groups,
        evaluator=None if public.validation is None else public.validation.evaluator,
        refresh=_refresh(model),
        observer=_observer(parts, progress, attendance),
    )


def _refresh(model: TrainableModel) -> Refresh:
    """The server's refactoring; where the A matrices were never changed, they are those of the plan's seed."""
    first = model.basis()

    def refresh(weights: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return refactor(weights, basis if basis.size else first, model.spec, model.basis_spec)

    return refresh


def _observer(parts: RunParts, progress: Progress, attendance: Attendance) -> Callable[[RoundSummary], None]:
    plan = parts.signed.plan
    spent = epsilon_by_round(mechanism_of(plan), plan.rounds)

    def observer(summary: RoundSummary) -> None:
        parts.audit.record(
            RoundEnded(
                plan=parts.signed.digest,
                round_number=summary.round_number,
                sites=summary.survivors,
                applied=summary.applied,
            )
        )
        progress.tell(_told(summary, spent[summary.round_number - 1], attendance.take_silent()))

    return observer


def _told(summary: RoundSummary, spent: float, silent: tuple[str, ...]) -> RoundProgress:
    judged = summary.validation
    figures = {} if judged is None else {"validation loss": judged.loss, **judged.metrics}
    return RoundProgress(
        round_number=summary.round_number,
        survivors=summary.survivors,
        epsilon=spent,
        seconds=summary.seconds,
        figures=figures,
        refusals=dict(summary.refusals),
        silent=silent,
        remark="" if summary.applied else f"nothing changed: {summary.abort or 'too few sites'}",
    )


def _report(
    parts: RunParts, model: TrainableModel, public: PublicSets, outcome: RunOutcome, seconds: float
) -> RunReport:
    plan = parts.signed.plan
    mechanism = mechanism_of(plan)
    # The coordinator does not see the sites' books: each is charged for every round that was begun, at most.
    steps = len(outcome.rounds) * plan.local_steps
    curve = epsilon_by_round(mechanism, plan.rounds)
    return RunReport(
        plan=plan,
        outcome=outcome,
        privacy=tuple(SitePrivacy(site, steps, epsilon(mechanism), curve) for site in sorted(plan.roster)),
        data="Private records of the hospitals, which never left them.",
        trained_values=model.spec.dimension,
        validation=public.judged("validation", outcome.model),
        test=public.judged("test", outcome.model),
        seconds=seconds,
        versions=dict(_versions()),
    )


def _versions() -> Iterator[tuple[str, str]]:
    """Of the packages that a result hangs on; one that is not installed here has no part in it."""
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _write_result(parts: RunParts, model: TrainableModel, report: RunReport) -> None:
    (parts.folder / RESULTS_NAME).unlink(missing_ok=True)  # first: what follows replaces what it vouches for
    shutil.rmtree(parts.folder / ADAPTER_NAME, ignore_errors=True)
    chosen = report.outcome.model
    model.export(parts.signed.plan.base.name, chosen.weights, chosen.basis, parts.folder / ADAPTER_NAME)
    write_report(report, parts.folder)
