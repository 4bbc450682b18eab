"""`cloister-simulate`: the same plan on one machine, with virtual hospitals."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import command_app, findings_table, outer_door, say, stderr, stdout, tally
from common.config_file import read_toml
from common.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from simulations.federation import Engine
    from simulations.scenario import Scenario

app = command_app(
    "Federate a private fine-tune across virtual hospitals on this machine.\n\n"
    "Results go to stdout, progress to stderr. A scenario is a TOML file, or the name of one that comes with the "
    "package: `demo`, `adverse-events`, `adverse-events-record`.\n\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 config or data, 13 integrity, 15 secure aggregation aborted, "
    "16 too few sites, 75 try again later."
)

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
        finished = resume_run(resume, stderr(), chosen)
    else:
        finished = start_run(_open(scenario or "", overrides, data, output), stderr(), chosen)
    if as_json:
        print((finished.folder / "results.json").read_text(encoding="utf-8"))
    else:
        stdout().print(finished.summary, soft_wrap=True)


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
        stdout().print(findings_table(findings))
        stdout().print(f"\n{tally(findings)}")
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
    comparison = compare_arms(asked, seeds, tuple(epsilons or ()), stderr(), tuple(arms or ()))
    if as_json:
        print((comparison.folder / "comparison.json").read_text(encoding="utf-8"))
    else:
        stdout().print(comparison.table)
        stdout().print(f"table and picture: {comparison.folder}", soft_wrap=True)


@app.command()
def notes(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the files go; made if it is not there.", show_default=False)
    ],
    hospitals: Annotated[int, typer.Option("--hospitals", min=1, max=1000, help="So many, of four kinds in turn.")] = 3,
    patients: Annotated[int, typer.Option("--patients", min=2, help="Of each hospital, with 1 to 8 notes each.")] = 400,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same notes.")] = 1,
) -> None:
    """Write synthetic clinical notes, nobody's data, for trying things: a CSV file a hospital, and two public ones.

    Example: `cloister-simulate notes notes --hospitals 3`
    """
    from simulations.notes import NotesConfig, write_notes

    folder.mkdir(parents=True, exist_ok=True)
    for path in write_notes(folder, NotesConfig(hospitals=hospitals, patients_per_hospital=patients), seed):
        print(path)
    say("columns patient_id, text and label; labels no_reaction and reaction")


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


def main() -> None:
    """The outer door: every error leaves as one sentence and an exit code."""
    outer_door(app)
