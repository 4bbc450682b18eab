import tomllib
from pathlib import Path

from tests.early_interrupt import interrupted_while_importing, loaded_by


def test_the_command_that_is_installed_begins_here() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["cloister-coordinator"] == "server.entry:main"


def test_nothing_of_the_command_is_imported_before_an_interrupt_may_come() -> None:
    assert not loaded_by("server.entry") & {"server.cli", "typer", "rich", "pydantic", "structlog", "numpy"}


def test_an_interrupt_meanwhile_is_130_without_a_word() -> None:
    ended = interrupted_while_importing("server.entry", "server.cli")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
