from importlib.metadata import version

import pytest
from typer.testing import CliRunner

import client.cli
import server.cli
import simulations.cli

COMMANDS = (client.cli.app, server.cli.app, simulations.cli.app)


@pytest.mark.parametrize(
    "command", [client.cli.app, server.cli.app, simulations.cli.app], ids=["site", "coordinator", "simulate"]
)
def test_each_command_says_its_version(command):
    result = CliRunner().invoke(command, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"cloister {version('cloister')}\n")


@pytest.mark.parametrize(
    "command", [client.cli.app, server.cli.app, simulations.cli.app], ids=["site", "coordinator", "simulate"]
)
def test_the_help_is_still_the_command_s_own(command):
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "hospital" in result.stdout
    assert "--version" in result.stdout
