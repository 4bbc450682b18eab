"""The command line as text: what goes where, and with which exit code."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

import simulations.check
import simulations.run
from common.errors import TryAgainError
from common.findings import Finding
from simulations.cli import find_scenario, main
from tests.tiny_scenario import CANARY, write_tiny_scenario

COMMANDS = {
    "run": ("--resume", "--set", "--data", "--output", "--engine", "--workers", "--ray-address", "--json"),
    "check": ("--set", "--data", "--json"),
    "compare": ("--seeds", "--epsilon", "--set", "--data", "--output", "--json"),
    "notes": ("--hospitals", "--patients", "--seed"),
}


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call the command in this process, as from a pipe of 100 columns."""
    for name in ("CLOISTER_DATA", "CLOISTER_OUTPUT", "CLOISTER_DEBUG", "FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["cloister-simulate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    yield call
    structlog.reset_defaults()  # main() sends the log to this test's stderr, which ends with the test


@pytest.fixture
def scenario(tmp_path: Path, tiny_base: Path) -> Path:
    return write_tiny_scenario(tmp_path, tiny_base)


def only_run(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


# --- help and usage ------------------------------------------------------------------------------------------------


def test_help_names_the_commands_the_streams_and_the_exit_codes(cli) -> None:
    done = cli("--help")
    assert done.code == 0
    assert done.err == ""
    text = " ".join(done.out.split())
    assert "Results go to stdout, progress to stderr" in text
    assert "15 secure aggregation aborted, 16 too few sites, 75 try again later." in text
    assert all(f"│ {command}" in text for command in COMMANDS)


def test_without_a_command_there_is_help(cli) -> None:
    done = cli()
    assert done.code == 2
    assert "Usage: cloister-simulate" in done.out + done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_options(cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.code == 0
    assert f"Usage: cloister-simulate {command}" in done.out
    for option in COMMANDS[command]:
        assert f" {option} " in done.out
    unexplained = [line for line in done.out.splitlines() if line.startswith("│ --") and len(line.split()) < 5]
    assert not unexplained


def test_help_does_not_wait_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    code = (
        "import sys; sys.argv = ['cloister-simulate', '--help']\n"
        "from simulations.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "demo", "--bogus"), "No such option"),
        (("fly",), "No such command"),
        (("check",), "Missing argument"),
        (("compare", "demo", "--seeds", "0"), "'--seeds'"),
        (("run",), "give a scenario or --resume RUN_FOLDER"),
        (("run", "demo", "--resume", "folder"), "give a scenario or --resume RUN_FOLDER, not both"),
        (("run", "--resume", "folder", "--set", "plan.rounds=3"), "--set, --data and --output cannot change it"),
        (("run", "--resume", "folder", "--output", "x"), "--set, --data and --output cannot change it"),
        (("run", "--resume", "/no/such/folder"), "/no/such/folder is not a run folder"),
        (("check", "demo", "--data", "rows"), "--data is for scenarios with [data.files], and demo has none"),
        (("run", "demo", "--workers", "2"), "--workers and --ray-address are for --engine flower"),
        (("run", "demo", "--ray-address", "auto"), "--workers and --ray-address are for --engine flower"),
        (
            ("run", "demo", "--engine", "flower", "--workers", "2", "--ray-address", "auto"),
            "--workers is for this machine",
        ),
        (("run", "demo", "--engine", "flour"), "'flour' is not one of 'in-process', 'flower'"),
        (("run", "demo", "--set", "plan.rounds"), "--set must look like KEY.PATH=VALUE (found 'plan.rounds')"),
    ],
)
def test_a_wrong_call_exits_2_and_says_so_on_stderr(cli, arguments: tuple[str, ...], sentence: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert sentence in " ".join(done.err.replace("│", " ").split())
    assert done.out == ""


def test_an_engine_that_is_not_installed_says_what_to_install(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.flower_run.INSTALLED", False)
    done = cli("run", "demo", "--engine", "flower")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        "error: --engine flower needs Flower and Ray, which are not installed",
        'hint: pip install "cloister[ray]", or leave --engine out',
    ]


@pytest.mark.parametrize("resumed", [True, False])
def test_the_engine_asked_for_is_the_one_that_runs(
    cli, scenario: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    pytest.importorskip("flwr")
    pytest.importorskip("ray")
    asked = []

    def run(_what: object, _console: object, engine: object) -> None:
        asked.append(engine)
        raise TryAgainError("far enough")

    monkeypatch.setattr(simulations.run, "resume_run" if resumed else "start_run", run)
    target = ("--resume", scenario.parent) if resumed else (scenario,)
    assert cli("run", *target, "--engine", "flower", "--workers", "2").code == 75
    assert cli("run", *target).code == 75
    assert [None if engine is None else engine._wish.workers for engine in asked] == [2, None]
    assert asked[0].in_process is False


def test_an_unknown_scenario_is_named_with_those_there_are(cli) -> None:
    done = cli("check", "dmo")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[0] == "error: there is no scenario dmo"
    assert "demo" in done.err.splitlines()[1]


def test_a_file_wins_over_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_scenario("demo").is_absolute()
    (tmp_path / "demo").write_text("")
    assert find_scenario("demo") == Path("demo")


# --- problems ------------------------------------------------------------------------------------------------------


def test_every_problem_of_a_config_is_shown_with_its_hint(cli, scenario: Path) -> None:
    done = cli("run", scenario, "--set", "plan.rounds=two", "--set", "plan.adaptr.rank=3")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        f"error: {scenario} has 2 problems",
        "  - plan.rounds: must be a whole number, without quotes (found 'two')",
        "    hint: change `plan.rounds`; docs/configuration.md lists what it may be",
        "  - plan.adaptr: is not a known key",
        "    hint: did you mean `adapter`?",
    ]


@pytest.mark.parametrize("command", [("run",), ("check",), ("compare", "--epsilon", "8")], ids=" ".join)
def test_a_missing_column_is_named_with_its_file_and_no_record(cli, scenario: Path, command: tuple[str, ...]) -> None:
    done = cli(*command, scenario, "--set", "data.files.columns.text=note")
    assert (done.code, done.out) == (3, "")
    train = scenario.parent / "data" / "train.csv"
    assert f"  - {train}, column `note`: is missing" in done.err.splitlines()
    assert CANARY not in done.err


def test_bad_rows_are_counted_and_not_quoted(cli, scenario: Path) -> None:
    train = scenario.parent / "data" / "train.csv"
    train.write_text(train.read_text() + f"p99,{CANARY} again,{CANARY}-label\np98,,none\n")
    done = cli("check", scenario)
    assert (done.code, done.out) == (3, "")
    assert "column `label`: is not one of the plan's labels in 1 row" in done.err
    assert "column `text`: is empty in 1 row" in done.err
    assert CANARY not in done.err


def test_brackets_in_an_error_are_not_taken_for_markup(cli, scenario: Path) -> None:
    done = cli("check", scenario, "--set", "data.notes.hospitals=2")
    assert "give exactly one of the tables [data.files] and [data.notes]" in done.err


def test_an_error_nobody_expected_is_one_sentence_without_its_message(
    cli, scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError(f"could not read {CANARY}")

    monkeypatch.setattr(simulations.run, "federate", break_down)
    done = cli("run", scenario)
    assert (done.code, done.out) == (1, "")
    assert "error: something went wrong that Cloister did not expect: RuntimeError" in done.err.splitlines()
    assert "CLOISTER_DEBUG=1" in done.err
    assert CANARY not in done.err


def test_the_debug_switch_lets_it_through(scenario: Path, monkeypatch: pytest.MonkeyPatch, cli) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("could not read")

    monkeypatch.setattr(simulations.run, "federate", break_down)
    monkeypatch.setenv("CLOISTER_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["cloister-simulate", "run", str(scenario)])
    with pytest.raises(RuntimeError, match="could not read"):
        main()


def test_an_interrupted_run_says_how_to_go_on(cli, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(simulations.run, "federate", interrupt)
        done = cli("run", scenario)
    folder = only_run(scenario.parent)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-2:] == [
        "error: the run was interrupted",
        f"hint: go on with: cloister-simulate run --resume {folder}",
    ]
    assert cli("run", "--resume", folder).code == 0


# --- results -------------------------------------------------------------------------------------------------------


def test_a_run_prints_its_last_lines_to_stdout_and_its_rounds_to_stderr(cli, scenario: Path) -> None:
    done = cli("run", scenario)
    assert done.code == 0
    assert [line.split(":")[0] for line in done.out.splitlines()[:5]] == ["reached", "took", "cost", "folder", "next"]
    assert f"folder:  {only_run(scenario.parent)}" in done.out.splitlines()
    assert [line.split("  ")[0] for line in done.err.splitlines()][-2:] == ["round 1/2", "round 2/2"]
    assert CANARY not in done.out + done.err
    assert "\x1b" not in done.out + done.err


def test_a_finished_run_is_not_run_again(cli, scenario: Path) -> None:
    cli("run", scenario)
    folder = only_run(scenario.parent)
    done = cli("run", "--resume", folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip() == f"{folder} is finished already; nothing to do"


def test_json_of_a_run_is_its_results_file(cli, scenario: Path, tmp_path: Path) -> None:
    done = cli("run", scenario, "--json", "--output", tmp_path / "elsewhere")
    (folder,) = (tmp_path / "elsewhere").iterdir()
    assert json.loads(done.out) == json.loads((folder / "results.json").read_bytes())
    again = cli("run", "--resume", folder, "--json")
    assert json.loads(again.out) == json.loads(done.out)


def test_options_may_stand_in_the_environment(
    cli, scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").rename(tmp_path / "moved")
    monkeypatch.setenv("CLOISTER_DATA", str(tmp_path / "moved"))
    monkeypatch.setenv("CLOISTER_OUTPUT", str(tmp_path / "elsewhere"))
    assert cli("run", scenario).code == 0
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_a_data_folder_is_relative_to_the_caller(
    cli, scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "data").rename(tmp_path / "other" / "moved")
    monkeypatch.chdir(tmp_path / "other")
    assert cli("check", scenario, "--data", "moved").code == 0
    assert cli("check", scenario).code == 3


def test_check_prints_findings_and_exits_0_where_none_fails(cli, scenario: Path) -> None:
    done = cli("check", scenario)
    assert (done.code, done.err) == (0, "")
    *findings, empty, tally = done.out.splitlines()
    levels = [line.split()[0] for line in findings if line[0] != " "]
    assert set(levels) == {"pass", "warn"}
    assert (empty, tally) == ("", f"{levels.count('pass')} pass, {levels.count('warn')} warn, 0 fail")
    assert "mend: raise `plan.privacy.sampling_rate`" in done.out
    assert "\x1b" not in done.out
    assert CANARY not in done.out


def test_check_exits_3_where_one_fails(cli, scenario: Path) -> None:
    done = cli("check", scenario, "--set", "plan.privacy.noise_multiplier=0.0")
    assert done.code == 3
    (line,) = [line for line in done.out.splitlines() if line.startswith("fail")]
    assert "privacy" in line
    assert "mend: set privacy.epsilon" in done.out
    assert done.err.splitlines() == ["error: the scenario does not fit", "hint: mend the lines marked fail"]


@pytest.mark.parametrize(("noise", "code"), [(1.0, 0), (0.0, 3)])
def test_json_of_a_check_is_its_findings(cli, scenario: Path, noise: float, code: int) -> None:
    done = cli("check", scenario, "--json", "--set", f"plan.privacy.noise_multiplier={noise}")
    assert done.code == code
    findings = [Finding(**finding) for finding in json.loads(done.out)]
    assert ("fail" in {finding.level for finding in findings}) == bool(code)


def test_brackets_in_a_finding_are_not_taken_for_markup(cli, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("warn", "[red]subject", "a [data.files] sentence", "mend [link]")
    monkeypatch.setattr(simulations.check, "check_scenario", lambda scenario: (finding,))
    done = cli("check", scenario)
    said = "warn [red]subject a [data.files] sentence mend: mend [link] 0 pass, 1 warn, 0 fail"
    assert done.out.split() == said.split()


def test_compare_prints_the_table_and_where_it_is(cli, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("compare", scenario, "--epsilon", "8", "--set", "plan.rounds=1", "--set", "hospitals.count=4")
    assert done.code == 0
    assert "DP-SGD, alone" in done.out
    folder = only_run(scenario.parent)
    assert done.out.splitlines()[-1] == f"table and picture: {folder}"
    assert done.err.splitlines()[:2] == [
        "seed 3: data, base model and frozen layers",
        "seed 3: training non-private, pooled",
    ]
    assert done.err.splitlines()[2].startswith("seed 3  non-private, pooled: AUC ")


def test_compare_without_a_target_says_what_to_give(cli, scenario: Path) -> None:
    done = cli("compare", scenario)
    assert (done.code, done.out) == (3, "")
    assert "--epsilon" in done.err


# --- colour --------------------------------------------------------------------------------------------------------


def test_colour_is_for_terminals_that_want_it(cli, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("warn", "draw", "few units", "more")
    monkeypatch.setattr(simulations.check, "check_scenario", lambda scenario: (finding,))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[33mwarn" in cli("check", scenario).out
    assert "\x1b[31merror" in cli("check", "dmo").err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in cli("check", scenario).out
    assert "\x1b[31m" not in cli("check", "dmo").err


def test_an_output_folder_that_cannot_be_made_is_one_sentence(cli, scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for output, name in ((tmp_path / "file", "FileExistsError"), (tmp_path / "file" / "runs", "NotADirectoryError")):
        done = cli("run", scenario, "--output", output)
        assert done.code == 3
        assert f"output folder {output} cannot be used: {name}" in done.err
        assert "--output" in done.err


def test_notes_are_written_as_files_that_sites_read(cli, tmp_path: Path) -> None:
    done = cli("notes", tmp_path / "new", "--hospitals", 2, "--patients", 3)
    names = ["hospital-1.csv", "hospital-2.csv", "validation.csv", "test.csv"]
    assert done.code == 0
    assert done.out.split() == [str(tmp_path / "new" / name) for name in names]
    assert all((tmp_path / "new" / name).read_text().startswith("patient_id,text,label\n") for name in names)
