"""The outer door of every command, and what they print alike."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from rich.console import Console

from common.command_line import findings_table, outer_door, person, tally
from common.errors import ConfigError, Problem, TooFewSitesError
from common.findings import Finding


@pytest.fixture
def door(monkeypatch, capsys):
    """What a command that raises leaves behind: exit code and stderr."""
    monkeypatch.delenv("CLOISTER_DEBUG", raising=False)

    def leave(error):
        def command():
            raise error

        with pytest.raises(SystemExit) as ended:
            outer_door(command)
        captured = capsys.readouterr()
        assert captured.out == ""
        return ended.value.code, captured.err

    yield leave
    structlog.reset_defaults()


def test_an_error_of_ours_is_its_sentence_its_hint_and_its_code(door):
    code, text = door(TooFewSitesError("1 site is ready, and the plan needs 3", hint="wait"))
    assert code == 16
    assert text == "error: 1 site is ready, and the plan needs 3\nhint: wait\n"


def test_every_problem_of_a_config_is_shown_and_brackets_are_text(door):
    problems = (Problem("privacy.epsilon", "must be positive", "[-1]", "raise it"), Problem("rounds", "is required"))
    code, text = door(ConfigError("plan.toml has 2 problems", problems))
    assert code == 3
    assert "  - privacy.epsilon: must be positive (found [-1])\n    hint: raise it\n" in text
    assert "  - rounds: is required\n" in text


def test_a_hint_that_a_problem_gives_is_not_given_again(door):
    problem = Problem("privacy.grid_bits", "leaves no room", "24", "lower it")
    assert door(ConfigError("a sum could wrap", (problem,), "lower it"))[1].count("lower it") == 1
    assert door(ConfigError("a sum could wrap", (problem,), "or wait"))[1].endswith("hint: lower it\nhint: or wait\n")


def test_a_full_disk_is_a_sentence_with_the_next_step(door):
    code, text = door(OSError(28, "No space left on device", "/plans"))
    assert code == 1
    assert text == "error: the system said no: /plans: No space left on device\nhint: make room there\n"


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG])
def test_a_full_quota_is_a_full_disk_too_whatever_the_system_calls_it(door, number):
    code, text = door(OSError(number, "kein Platz", "/plans"))
    assert code == 1
    assert "hint: make room there, or have this account's" in text


def test_what_is_no_full_disk_has_another_hint(door):
    assert "check the path" in door(OSError(errno.EACCES, "no space for you", "/plans"))[1]


LAST_WORDS = "from common.command_line import outer_door; import sys; outer_door(lambda: print('x' * {size}))"


def spoken(size, stdout):
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", LAST_WORDS.format(size=size)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=kept)


@pytest.mark.parametrize(
    ("size", "words"), [(10, "standard output: No space left on device"), (100_000, "where this command writes")]
)
def test_words_that_a_full_disk_did_not_take_are_an_error(size, words):
    with Path("/dev/full").open("w") as full:
        ended = spoken(size, full)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 2


def test_a_reader_that_has_read_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    ended = spoken(10, write)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_of_an_unexpected_error_only_the_kind_is_shown(door):
    code, text = door(KeyError("patient 4711"))
    assert code == 1
    assert "KeyError" in text
    assert "4711" not in text


def test_debugging_lets_it_pass_whole(monkeypatch):
    monkeypatch.setenv("CLOISTER_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        outer_door(lambda: 1 // 0)
    structlog.reset_defaults()


def test_a_command_that_does_well_returns():
    outer_door(lambda: None)
    structlog.reset_defaults()


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (ConfigError("x"), 3), (SystemExit(0), 0)])
def test_every_way_out_shows_the_cursor_of_a_terminal_again(door, monkeypatch, raised, code):
    stream = io.StringIO()
    monkeypatch.setattr("common.command_line.stderr", lambda: Console(file=stream, force_terminal=True, width=80))
    assert door(raised) == (code, "")
    assert stream.getvalue().endswith("\x1b[?25h")


def test_in_a_pipe_there_is_no_cursor_to_show(door):
    assert door(KeyboardInterrupt()) == (130, "")


@pytest.mark.parametrize(
    ("account", "kept"),
    [("mkeller", "mkeller"), ("HOSPITAL\\m:k", "HOSPITALmk"), ("\n", "unknown"), ("a" * 99, "a" * 64)],
)
def test_an_account_becomes_a_name_that_an_audit_log_takes(monkeypatch, account, kept):
    monkeypatch.setattr("getpass.getuser", lambda: account)
    assert person() == kept


def test_findings_show_the_mend_where_there_is_something_to_mend():
    findings = (Finding("pass", "masks", "fine", "nothing"), Finding("fail", "base", "gone [x]", "restore it"))
    stream = io.StringIO()
    Console(file=stream, width=60).print(findings_table(findings))
    text = stream.getvalue()
    assert "nothing" not in text
    assert "gone [x]" in text
    assert "mend: restore it" in text
    assert tally(findings) == "1 pass, 0 warn, 1 fail"
