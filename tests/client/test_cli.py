import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from client.cli import app
from tests.site_commands import Play, command

COMMANDS = typer.main.get_command(app).commands
NAMES = (
    "init request accept data doctor review approve withdraw plans start stop pause resume "
    "status budget report verify recover"
).split()

# What takes seconds to import, and what only training, policy and the network need.
SLOW = ("torch", "flwr", "scipy", "dp_accounting", "transformers", "httpx")


def test_every_command_is_there() -> None:
    assert sorted(COMMANDS) == sorted(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"data"}])
def test_help_teaches_by_an_example(name: str) -> None:
    assert f"`cloister-site {name}" in (COMMANDS[name].help or "")


def test_the_page_of_help_names_every_command_and_exit_code() -> None:
    text = command("--help").out
    assert all(f" {name} " in text for name in NAMES)
    assert all(f"{code} " in text for code in (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 75))


@pytest.mark.parametrize("words", [("--help",), ("status", "--home")])
def test_help_and_status_answer_without_what_is_slow_to_import(tmp_path: Path, words: tuple[str, ...]) -> None:
    play = Play(tmp_path).join()
    words = (*words, str(play.site.path)) if words[0] == "status" else words
    script = (
        "import sys; from client.cli import main\n"
        f"sys.argv = ['cloister-site', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        f"print('slow:', [name for name in {SLOW!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.rstrip().endswith("slow: []")


@pytest.mark.parametrize("words", [("nonsense",), ("review",), ("status", "--nonsense"), ("start", "--wait", "-1")])
def test_a_command_that_was_typed_wrongly_is_exit_2(words: tuple[str, ...]) -> None:
    assert command(*words).code == 2


@pytest.mark.parametrize("name", ["request", "review x", "plans", "start", "stop", "pause", "status", "verify"])
def test_without_a_home_every_command_says_how_to_make_one(tmp_path: Path, name: str) -> None:
    ended = command(*name.split(), "--home", tmp_path / "none")
    assert ended.code == 3
    assert ended.out == ""
    assert "there is no site at" in ended.err
    assert "cloister-site init" in ended.err


def test_what_nobody_expected_is_one_sentence_without_content(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("CLOISTER_DEBUG", raising=False)
    monkeypatch.setattr("client.commands.status.look", lambda _: {}["patient 4711"])
    Play(tmp_path).init()
    ended = command("status", "--home", tmp_path / "site")
    assert ended.code == 1
    assert "KeyError" in ended.err
    assert "4711" not in ended.err + ended.out
    assert "Traceback" not in ended.err


def test_the_home_may_stand_in_the_environment(tmp_path: Path, monkeypatch) -> None:
    play = Play(tmp_path)
    play.init()
    monkeypatch.setenv("CLOISTER_SITE_HOME", str(play.site.path))
    assert "north" in command("status").out
