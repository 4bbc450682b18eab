import re
from pathlib import Path

import typer

import client.cli
import server.cli
import simulations.cli

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(r"`((?:common|client|server|simulations|tests|docs)/[\w./-]+\.(?:py|md|toml))`")
# These two also name files that are yet to be written, and say so.
AHEAD = {"docs/architecture.md", "docs/adding-a-task.md"}
MAKE_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
APPS = {"simulate": simulations.cli.app, "site": client.cli.app, "coordinator": server.cli.app}
SUBCOMMAND = re.compile(r"\bcloister-(simulate|site|coordinator) ([a-z][a-z-]*)(?: ([a-z]+))?")
RULE = re.compile(r"^([a-z-]+):", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)


def commands(text: str) -> str:
    """What stands in code blocks and code spans; prose may say "make sure"."""
    return "\n".join(CODE.findall(text))


def test_relative_links_lead_somewhere(pages: list[Path], root: Path) -> None:
    broken = [
        f"{page.relative_to(root)}: {link}"
        for page in pages
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_files_that_pages_name_exist(pages: list[Path], root: Path) -> None:
    missing = {
        f"{page.relative_to(root)}: {name}"
        for page in pages
        for name in FILE.findall(page.read_text(encoding="utf-8"))
        if page.relative_to(root).as_posix() not in AHEAD and not (root / name).is_file()
    }
    assert missing == set()


def test_make_targets_that_pages_name_exist(pages: list[Path], root: Path) -> None:
    targets = set(RULE.findall((root / "Makefile").read_text(encoding="utf-8")))
    named = {name for page in pages for name in MAKE_TARGET.findall(commands(page.read_text(encoding="utf-8")))}
    assert named, "no page names a make target; the pattern must be wrong"
    assert named - targets == set()


def names_of(app: typer.Typer) -> dict[str, set[str]]:
    """Commands of an app, each with its own subcommands."""
    plain = {command.name or command.callback.__name__: set() for command in app.registered_commands}
    return plain | {group.name: set(names_of(group.typer_instance)) for group in app.registered_groups}


def test_commands_that_pages_name_exist(pages: list[Path]) -> None:
    known = {name: names_of(app) for name, app in APPS.items()}
    named = {found for page in pages for found in SUBCOMMAND.findall(commands(page.read_text(encoding="utf-8")))}
    assert {program for program, _, _ in named} == set(APPS), "the pattern must be wrong"
    unknown = [
        (program, command, below)
        for program, command, below in named
        if command not in known[program] or (known[program][command] and below not in known[program][command])
    ]
    assert unknown == []


def test_ci_runs_the_readme_test_command(root: Path) -> None:
    ci = (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    command = ci[-1]
    assert command.startswith("make ")
    assert command in commands((root / "README.md").read_text(encoding="utf-8"))
