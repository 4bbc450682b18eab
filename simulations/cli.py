"""`cloister-simulate`: the same plan on one machine, with virtual hospitals."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.config_file import read_toml
from common.errors import CloisterError, ConfigError, UsageError
from common.findings import Finding

if TYPE_CHECKING:
    from simulations.federation import Engine
    from simulations.scenario import Scenario

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=(
        "Federate a private fine-tune across virtual hospitals on this machine.\n\n"
        "Results go to stdout, progress to stderr. A scenario is a TOML file, or the name of one that comes with the "
        "package: `demo`, `adverse-events`, `adverse-events-record`.\n\n"
        "Exit codes: 0 ok, 1 failed, 2 usage, 3 config or data, 13 integrity, 15 secure aggregation aborted, "
        "16 too few sites, 75 try again later."
    ),
)

_PIPE_COLUMNS = 200
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}
_PACKAGED = Path(__file__).parent / "scenarios"


class EngineName(StrEnum):
    """Where the virtual hospitals of a run live."""

    IN_PROCESS = "in-process"
    FLOWER = "flower"


ScenarioArgument = Annotated[
    str, typer.Argument(help="Scenario file, or the name of one that comes with the package.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Change one key of the scenario (nothing after = takes it out); may be repeated.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="FOLDER", envvar="CLOISTER_DATA", help="Folder of the data files, in place of the scenario's."
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="FOLDER",
        envvar="CLOISTER_OUTPUT",
        help="Where run folders are made, in place of the scenario's.",
    ),
]
EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="Where the hospitals live: here, or in workers of Flower's engine (Ray).")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Worker processes of --engine flower on this machine; else one a hospital, as processors allow.",
        show_default=False,
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Ray cluster for --engine flower; the run folder must be on a disk that all its machines share.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def run(
    scenario: Annotated[
        str | None, typer.Argument(help="Scenario file or name; left out with --resume.", show_default=False)
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN_FOLDER", help="Go on with a run that was stopped.")
    ] = None,
    overrides: SetOption = None,
    data: DataOption = None,
    output: OutputOption = None,
    engine: EngineOption = EngineName.IN_PROCESS,
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run all rounds and leave a run folder: adapter, model card, results, picture, plan.

    Examples: `cloister-simulate run demo` · `cloister-simulate run mine.toml --set plan.privacy.epsilon=8`
    """
    from simulations.run import resume_run, start_run

    if (scenario is None) == (resume is None):
        rule = "give a scenario or --resume RUN_FOLDER" + ("" if scenario is None else ", not both")
        raise UsageError(rule, hint="for example: cloister-simulate run demo")
    if resume is not None and (overrides or data or output):
        raise UsageError(
            "--resume goes on with the run as it was started, so --set, --data and --output cannot change it",
            hint="leave them out (also CLOISTER_DATA and CLOISTER_OUTPUT), or start a new run",
        )
    chosen = _engine(engine, workers, ray_address)
    if resume is not None:
        finished = resume_run(resume, _stderr(), chosen)
    else:
        finished = start_run(_open(scenario or "", overrides, data, output), _stderr(), chosen)
    if as_json:
        print((finished.folder / "results.json").read_text(encoding="utf-8"))
    else:
        _stdout().print(finished.summary, highlight=False, soft_wrap=True)


@app.command()
def check(
    scenario: ScenarioArgument, overrides: SetOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Check a scenario before training: data, model, privacy, cost; pass, warn or fail, each with the mend."""
    from simulations.check import check_scenario

    findings = check_scenario(_open(scenario, overrides, data, None))
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        _stdout().print(_findings_table(findings))
        _stdout().print(_tally(findings), highlight=False)
    if any(finding.level == "fail" for finding in findings):
        raise ConfigError("the scenario does not fit", hint="mend the lines marked fail")


@app.command()
def compare(
    scenario: ScenarioArgument,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=20, help="Repeat with so many seeds, and report mean and spread.")
    ] = 1,
    epsilons: Annotated[
        list[float] | None, typer.Option("--epsilon", help="Target ε in place of the scenario's; may be repeated.")
    ] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option(
            "--arm", help="Run this arm only: distributed, per-site, or another name of the table; may be repeated."
        ),
    ] = None,
    overrides: SetOption = None,
    data: DataOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set mode distributed beside per-site, pooled and lone training on the same data, at the same ε."""
    from simulations.compare import compare_arms

    asked = _open(scenario, overrides, data, output)
    comparison = compare_arms(asked, seeds, tuple(epsilons or ()), _stderr(), tuple(arms or ()))
    if as_json:
        print((comparison.folder / "comparison.json").read_text(encoding="utf-8"))
    else:
        _stdout().print(comparison.table)
        _stdout().print(f"table and picture: {comparison.folder}", highlight=False, soft_wrap=True)


def _engine(name: EngineName, workers: int | None, ray_address: str | None) -> Engine | None:
    """The engine asked for; None is the one in this process."""
    if name == EngineName.IN_PROCESS:
        if workers is not None or ray_address is not None:
            raise UsageError("--workers and --ray-address are for --engine flower", hint="add --engine flower")
        return None
    if workers is not None and ray_address is not None:
        raise UsageError(
            "--workers is for this machine; a cluster's own processors say how many it gets", hint="leave one out"
        )
    from simulations.flower_run import FlowerEngine
    from simulations.ray_cluster import RayWish

    return FlowerEngine(RayWish(ray_address, workers))


def _open(scenario: str, overrides: list[str] | None, data: str | None, output: str | None) -> Scenario:
    from simulations.scenario import load_scenario

    path, changes = find_scenario(scenario), list(overrides or ())
    if data is not None:
        table = read_toml(path).get("data")
        if not isinstance(table, dict) or "files" not in table:
            raise UsageError(
                f"--data is for scenarios with [data.files], and {scenario} has none",
                hint="leave it out (also CLOISTER_DATA in the environment)",
            )
        changes.append(f"data.files.folder={json.dumps(str(Path(data).resolve()))}")
    if output is not None:
        changes.append(f"output={json.dumps(output)}")
    return load_scenario(path, changes)


def find_scenario(name: str) -> Path:
    """A scenario's file: a path, or the name of one that comes with the package.

    Raises:
        ConfigError: When it is neither.
    """
    packaged = {path.stem: path for path in sorted(_PACKAGED.glob("*.toml"))}
    if not Path(name).exists() and name in packaged:
        return packaged[name]
    if not Path(name).exists():
        hint = f"give the path of a TOML file, or one that comes with the package: {', '.join(packaged)}"
        raise ConfigError(f"there is no scenario {name}", hint=hint)
    return Path(name)


def _findings_table(findings: tuple[Finding, ...]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mend = f"\n[dim]mend: {escape(finding.mend)}[/dim]" if finding.mend and finding.level != "pass" else ""
        colour = _COLOURS[finding.level]
        table.add_row(f"[{colour}]{finding.level}[/{colour}]", escape(finding.subject), escape(finding.sentence) + mend)
    return table


def _tally(findings: tuple[Finding, ...]) -> str:
    counts = Counter(finding.level for finding in findings)
    return f"\n{counts['pass']} pass, {counts['warn']} warn, {counts['fail']} fail"


def _stdout() -> Console:
    # In a pipe nobody's window is 80 columns wide, and folded lines cannot be searched.
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)


def _stderr() -> Console:
    return Console(stderr=True)


def show_error(error: CloisterError, console: Console) -> None:
    """One sentence, every problem, the next step."""
    console.print(f"[red]error:[/red] {escape(error.message)}", highlight=False, soft_wrap=True)
    for problem in error.problems if isinstance(error, ConfigError) else ():
        console.print(f"  - {escape(str(problem))}", highlight=False, soft_wrap=True)
        if problem.hint:
            console.print(f"    [dim]hint:[/dim] {escape(problem.hint)}", highlight=False, soft_wrap=True)
    if error.hint:
        console.print(f"[dim]hint:[/dim] {escape(error.hint)}", highlight=False, soft_wrap=True)


def main() -> None:
    """The outer door: every error leaves as one sentence and an exit code."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app()
    except CloisterError as error:
        show_error(error, _stderr())
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        if os.environ.get("CLOISTER_DEBUG") == "1":
            raise
        unexpected = CloisterError(
            f"something went wrong that Cloister did not expect: {type(error).__name__}",
            hint="CLOISTER_DEBUG=1 shows where; its output may quote data, so keep it to yourself",
        )
        show_error(unexpected, _stderr())
        raise SystemExit(1) from None
