"""`cloister-coordinator` as a whole: its help, its speed, its outer door."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from server.cli import app

COMMANDS = {
    "init": ("--name", "--address", "--home", "--dry-run", "--json"),
    "enrol": ("--fingerprint", "--home", "--dry-run"),
    "withdraw": ("--home", "--dry-run"),
    "renew": ("--home", "--dry-run"),
    "sites": ("--home", "--json"),
    "plan check": ("--sites", "--sign", "--output", "--home", "--json"),
    "plan list": ("--home", "--json"),
    "plan show": ("--home", "--json"),
    "start": ("--home",),
    "run": ("--resume", "--enough", "--detach", "--home", "--json"),
    "stop": ("--service", "--home", "--dry-run"),
    "status": ("--home", "--json"),
    "report": ("--home", "--json"),
    "export": ("--output", "--home", "--dry-run"),
    "verify": ("--home", "--json"),
}


@pytest.fixture
def runner(monkeypatch):
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return CliRunner()


def test_help_names_the_commands_the_streams_and_the_exit_codes(runner):
    text = " ".join(runner.invoke(app, ["--help"]).output.split())
    for command in {name.split()[0] for name in COMMANDS}:
        assert f" {command} " in text
    assert "Data go to stdout, progress to stderr" in text
    assert "16 too few sites" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_names_its_options_and_shows_an_example(runner, command):
    done = runner.invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert "Example" in done.output
    for option in COMMANDS[command]:
        assert option in done.output


def test_a_wrong_command_is_a_usage_error(runner):
    assert runner.invoke(app, ["trian"]).exit_code == 2
    assert runner.invoke(app, []).exit_code == 2


def test_commands_that_only_look_load_neither_torch_nor_flower():
    """`status` is given again and again, and `--help` is where everybody begins."""
    heavy = ("torch", "flwr", "matplotlib", "scipy")
    code = f"import sys, server.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
