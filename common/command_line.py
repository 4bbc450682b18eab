"""What every command shares: where its words go, how a check is shown, and the one outer door for errors."""

from __future__ import annotations

import errno
import getpass
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.entry import INTERRUPTED
from common.errors import CloisterError, ConfigError
from common.findings import Finding
from common.version_option import top_level

_PIPE_COLUMNS = 200
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}
_PERSON_LETTERS = 64
_MAKE_ROOM = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or have this account's quota raised",
    errno.EFBIG: "make room there, or have this account's limit on the size of files raised",
}


def stdout() -> Console:
    """For data. In a pipe nobody's window is 80 columns wide, and folded lines cannot be searched."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(width=_PIPE_COLUMNS, highlight=False)


def stderr() -> Console:
    """For progress, questions and errors."""
    return Console(stderr=True, highlight=False)


def say(*sentences: str) -> None:
    """Lines to stderr, as they are."""
    console = stderr()
    for sentence in sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def can_ask() -> bool:
    """Whether a person is there to answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def person() -> str:
    """Who gives the command, as an audit log takes it: the account's name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, as in some containers
        name = f"account {os.getuid()}"
    kept = "".join(letter for letter in name if letter.isalnum() or letter in " .'@_-")
    return kept.strip()[:_PERSON_LETTERS] or "unknown"


def findings_table(findings: Iterable[Finding]) -> Table:
    """One row a finding: level, subject, sentence, and the mend where there is something to mend."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mend = f"\n[dim]mend: {escape(finding.mend)}[/dim]" if finding.mend and finding.level != "pass" else ""
        colour = _COLOURS[finding.level]
        table.add_row(f"[{colour}]{finding.level}[/{colour}]", escape(finding.subject), escape(finding.sentence) + mend)
    return table


def tally(findings: Sequence[Finding]) -> str:
    """How many findings there are of each level."""
    counts = Counter(finding.level for finding in findings)
    return f"{counts['pass']} pass, {counts['warn']} warn, {counts['fail']} fail"


def show_error(error: CloisterError, console: Console) -> None:
    """One sentence, every problem, the next step; a hint that a problem gives already is not given again."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    console.print(f"[red]error:[/red] {escape(error.message)}", highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(f"  - {escape(str(problem))}", highlight=False, soft_wrap=True)
        if problem.hint:
            console.print(f"    [dim]hint:[/dim] {escape(problem.hint)}", highlight=False, soft_wrap=True)
    if error.hint and error.hint not in {problem.hint for problem in problems}:
        console.print(f"[dim]hint:[/dim] {escape(error.hint)}", highlight=False, soft_wrap=True)


def command_app(words: str) -> typer.Typer:
    """A command with subcommands, as all of ours are.

    Args:
        words: Its help, in Markdown.
    """
    return typer.Typer(
        no_args_is_help=True,
        add_completion=True,
        suggest_commands=False,  # click does it, too
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        callback=top_level,
        help=words,
    )


def outer_door(command: Callable[[], object]) -> None:
    """Run a command; every error leaves as one sentence and an exit code, and the terminal as it was.

    Edge cases:
        An interrupt leaves with 130, and without a traceback.
        Of an unexpected error only the kind is shown: its own words may quote data. CLOISTER_DEBUG=1 lets it pass
        whole.

    Raises:
        SystemExit: When the command failed.
    """
    _quiet_log()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        _spoken(command)
    except CloisterError as error:
        raise _left(error) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if os.environ.get("CLOISTER_DEBUG") == "1":
            raise
        raise _left(_in_a_sentence(error)) from None
    finally:
        stderr().show_cursor()  # a line of progress that an interrupt met as it began leaves it hidden


def _spoken(command: Callable[[], object]) -> None:
    """Run a command, and see what it printed on its way: what fails at the end of a process shows no reason."""
    try:
        command()
    finally:
        try:
            if sys.stdout:  # closed by whoever gave the command
                sys.stdout.flush()
        except OSError as error:
            _drop_output()
            if error.errno != errno.EPIPE:  # a reader that has read enough, as `head` does, is no error
                error.filename = "standard output"
                raise


def _drop_output() -> None:
    """Python would try once more to write what is left, and tell of that in its own words."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _left(error: CloisterError) -> SystemExit:
    show_error(error, stderr())
    return SystemExit(error.exit_code)


def _in_a_sentence(error: Exception) -> CloisterError:
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        hint = _MAKE_ROOM.get(error.errno or 0, "check the path, its rights, and the disk")
        if not place:  # what a print met, for one: Python does not say where
            hint = hint.replace("there", "where this command writes: its folder, its output and the temporary files")
        return CloisterError(f"the system said no: {place}{error.strerror}", hint=hint)
    return CloisterError(
        f"something went wrong that Cloister did not expect: {type(error).__name__}",
        hint="CLOISTER_DEBUG=1 shows where; its output may quote data, so keep it to yourself",
    )


def _quiet_log() -> None:
    """The log goes to stderr, in colour on a terminal only."""
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=colours),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
