"""run, stop, report, export: from a signed plan to its result."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from common.audit_events import AdminCommand, RunEnded
from common.command_line import person, say, stderr, stdout
from common.errors import (
    BudgetError,
    CloisterError,
    ConfigError,
    DeadlineError,
    IntegrityError,
    NotApprovedError,
    RefusedError,
    RollbackError,
    SecureAggregationError,
    TooFewSitesError,
    TransportError,
    TryAgainError,
    UsageError,
)
from server.commands.options import DryRunOption, HomeOption, JsonOption, open_home, record
from server.following import follow
from server.home import CoordinatorHome
from server.progress import PhaseProgress
from server.run_export import export_run
from server.run_files import ADAPTER_NAME, CARD_NAME, RESULTS_NAME
from server.run_view import watch
from server.run_words import next_step
from server.runs import Run, current_run, find_run, run_of, runs_of
from server.service_status import service_process
from server.signed_plans import plan_called
from server.submission import RunControl, end_run, goes_on, refuse_without_service, signs_of, submit

RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="The run's or plan's name, or the beginning of its digest; else the last.",
        show_default=False,
    ),
]

_ERRORS: dict[int, type[CloisterError]] = {
    kind.exit_code: kind
    for kind in (
        UsageError,
        ConfigError,
        TransportError,
        DeadlineError,
        RefusedError,
        BudgetError,
        NotApprovedError,
        IntegrityError,
        RollbackError,
        SecureAggregationError,
        TooFewSitesError,
        TryAgainError,
    )
}
_DETACHED = 130
_SERVICE_STOP_SECONDS = 15.0


def run(
    plan: Annotated[
        str,
        typer.Argument(
            metavar="PLAN", help="A signed plan: its file, its digest, or the beginning of that.", show_default=False
        ),
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished round.")] = False,
    enough: Annotated[
        bool, typer.Option("--enough", help="Begin when enough sites are ready; do not wait for the rest.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and return at once.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a signed plan, and follow it: which site is ready or why not, rounds, ε, figures; at the end, the result.

    The service must be running. The run belongs to the service: Ctrl-C here only ends the following, and the same
    command follows it again. A run that was ended, --resume takes up after its last finished round.

    Examples: `cloister-coordinator run 3f2a` · `cloister-coordinator run sepsis-3f2a91c0.plan.json --resume`
    """
    chosen, _ = open_home(home)
    signed = plan_called(chosen, plan)
    refuse_without_service(chosen)
    control = _control(chosen)
    there = goes_on(run_of(chosen, signed), control)
    started = submit(chosen, control, signed, resume=resume, enough=enough)
    say(f"{started.name} goes on already" if there else f"{started.name} is handed to the SuperLink")
    if detach:
        say("`cloister-coordinator status` shows how it goes")
        return
    _follow(chosen, started, control)
    _show_result(started, as_json)


def _control(home: CoordinatorHome) -> RunControl:
    from server.config import load_coordinator_config
    from server.control import control_of

    return control_of(home, load_coordinator_config(home.config))


def _follow(home: CoordinatorHome, run: Run, control: RunControl) -> None:
    """Show a run's events until it is over.

    Raises:
        CloisterError: As the run's own end; see `_ERRORS`.
        typer.Exit: When the person at the keyboard has seen enough.
    """
    submission, last = run.submission, None
    start = 0 if submission is None else submission.progress_from
    try:
        with watch(stderr(), run.signed.plan) as view:
            for event in follow(run, start, signs_of(home, run, control)):
                view.show(event)
                last = event
    except KeyboardInterrupt:
        say(
            f"{run.name} goes on without you: `cloister-coordinator run {run.signed.digest[:8]}` follows it again, "
            "`cloister-coordinator stop` ends it"
        )
        raise typer.Exit(_DETACHED) from None
    if isinstance(last, PhaseProgress):
        _raise_end(run, last)


def _raise_end(run: Run, end: PhaseProgress) -> None:
    if end.phase == "failed":
        raise _ERRORS.get(end.exit_code, CloisterError)(end.sentence, hint=next_step(end, run.signed.digest))
    if end.phase == "stopped":
        again = f"`cloister-coordinator run {run.signed.digest[:8]} --resume` goes on"
        raise CloisterError(f"{run.name} was stopped", hint=again)


def _show_result(run: Run, as_json: bool) -> None:
    if as_json:
        print((run.folder / RESULTS_NAME).read_text(encoding="utf-8"))
        return
    out = stdout()
    for line in _result_lines(run):
        out.print(line, markup=False, soft_wrap=True)


def _result_lines(run: Run) -> tuple[str, ...]:
    results = json.loads((run.folder / RESULTS_NAME).read_bytes())
    return (
        f"adapter  {run.folder / ADAPTER_NAME}",
        f"card     {run.folder / CARD_NAME}",
        f"results  {run.folder / RESULTS_NAME}",
        f"cost     {_cost(results)}",
        *(f"{name:8} {_figures(results[name])}" for name in ("validation", "test") if results[name] is not None),
    )


def _cost(results: dict[str, Any]) -> str:
    privacy, totals = results["privacy"], results["totals"]
    epsilon = max((site["epsilon"] or float("inf") for site in privacy["sites"]), default=float("inf"))
    rounds = f"{totals['rounds']} of {totals['rounds_planned']} rounds in {totals['seconds']:.0f} s"
    return f"ε = {epsilon:.2f} at δ = {privacy['delta']:g} for each {privacy['unit']}; {rounds}"


def _figures(judged: dict[str, Any]) -> str:
    metrics = {"loss": judged["loss"], **judged["metrics"]}
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)


def stop(
    run: RunArgument = None,
    service: Annotated[bool, typer.Option("--service", help="End the service, and with it any run.")] = False,
    home: HomeOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stop the run that goes on, or with --service the whole service. A stopped run can be resumed.

    Where nothing runs there is nothing to stop, and that is said.

    Examples: `cloister-coordinator stop` · `cloister-coordinator stop --service`
    """
    chosen, _ = open_home(home)
    if service and run is not None:
        raise UsageError("--service ends whatever runs, so a run's name says nothing", hint="leave one of them out")
    if service:
        _stop_service(chosen, dry_run)
    else:
        _stop_run(chosen, run, dry_run)


def _stop_service(home: CoordinatorHome, dry_run: bool) -> None:
    pid = service_process(home)
    if pid is None:
        say("no service runs")
        return
    if dry_run:
        say(f"would end process {pid}")
        return
    record(home, AdminCommand(command="stop service", by=person()))
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _SERVICE_STOP_SECONDS
    while service_process(home) == pid:
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"process {pid} has not ended within {_SERVICE_STOP_SECONDS:g} seconds", hint=f"kill {pid}"
            )
        time.sleep(0.1)
    say("the service is stopped")


def _stop_run(home: CoordinatorHome, name: str | None, dry_run: bool) -> None:
    named = None if name is None else find_run(home, name)
    if service_process(home) is None and current_run(home) is None:
        say("no run goes on: the service is not running")
        return
    refuse_without_service(home)
    control = _control(home)
    chosen = named or _going(home, control)
    if chosen is None or not goes_on(chosen, control):
        say("no run goes on" if chosen is None else f"{chosen.name} does not go on")
        return
    if dry_run:
        say(f"would stop {chosen.name}")
        return
    end_run(chosen, control)
    record(home, AdminCommand(command="stop run", by=person()))
    record(home, RunEnded(plan=chosen.signed.digest, outcome="stopped"))
    say(f"{chosen.name} is stopped; `cloister-coordinator run {chosen.signed.digest[:8]} --resume` goes on")


def _going(home: CoordinatorHome, control: RunControl) -> Run | None:
    return current_run(home) or next((run for run in runs_of(home) if goes_on(run, control)), None)


def report(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a finished run: where its files are, what it cost, and the model card.

    Examples: `cloister-coordinator report` · `cloister-coordinator report sepsis-3f2a91c0 --json`
    """
    chosen, _ = open_home(home)
    found = _finished(find_run(chosen, run))
    _show_result(found, as_json)
    if not as_json:
        print()
        print((found.folder / CARD_NAME).read_text(encoding="utf-8"), end="")


def export(
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="A folder that does not exist yet.", show_default=False)
    ],
    run: RunArgument = None,
    home: HomeOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Copy a finished run's result: adapter folder, model card, picture, results and the signed plan.

    The adapter is an ordinary PEFT folder: `PeftModel.from_pretrained(base, "FOLDER/adapter")` needs no Cloister.

    Example: `cloister-coordinator export sepsis-3f2a91c0 --output result`
    """
    chosen, _ = open_home(home)
    found = _finished(find_run(chosen, run))
    files = export_run(found, output.absolute(), dry_run=dry_run)
    if dry_run:
        say(f"would write {', '.join(files)} to {output}")
        return
    record(chosen, AdminCommand(command="export", by=person()))
    print(output.absolute())


def _finished(run: Run) -> Run:
    if not run.is_finished:
        raise UsageError(f"{run.name} has no result yet", hint="`cloister-coordinator status` shows how far it is")
    return run
