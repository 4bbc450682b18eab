import inspect
import re

import pytest

from common import errors
from common.errors import CloisterError, ConfigError, Problem

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CloisterError)]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+Error)\s+(\d+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in KINDS}


def test_no_error_ends_with_success() -> None:
    assert all(1 <= kind.exit_code <= 125 for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_message_and_hint(kind: type[CloisterError]) -> None:
    error = kind("rounds must be at least 1 (found 0)", hint="set rounds")
    assert str(error) == error.message == "rounds must be at least 1 (found 0)"
    assert error.hint == "set rounds"
    assert kind("short").hint == ""


def test_a_problem_reads_as_a_line() -> None:
    assert (
        str(Problem("plan.rounds", "must be at least 1", "0", "set it")) == "plan.rounds: must be at least 1 (found 0)"
    )
    assert str(Problem("plan.rounds", "is required")) == "plan.rounds: is required"


def test_a_config_error_keeps_all_problems() -> None:
    problems = (Problem("a", "is required"), Problem("b", "is required"))
    assert ConfigError("two", problems).problems == problems
