from datetime import date

import pytest
from pydantic import Field

from common.config import Names, StrictConfig
from simulations.config_docs import Chapter, render


class Inner(StrictConfig):
    """An inner table."""

    names: Names = Field(("a|b",), min_length=1, description="some names")
    limit: float | None = Field(None, gt=0, le=1, description="a share")
    end: date | None = Field(None, description="a last day")


class Outer(StrictConfig):
    """The whole file."""

    count: int = Field(ge=2, description="how many")
    inner: Inner = Inner()


class Later(StrictConfig):
    """Another file that holds the same table."""

    other: Inner | None = None


class Silent(StrictConfig):
    """A key that nobody explains."""

    inner: Inner = Inner()
    mute: int = 1


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| `")]


def test_every_key_has_type_default_and_meaning() -> None:
    page = render([Chapter("File", "Opening.", Outer)])
    assert rows(page) == [
        "| `count` | whole number ≥ 2 | required | how many |",
        '| `names` | list of text, at least 1 | `["a\\|b"]` | some names |',
        "| `limit` | number > 0, ≤ 1 | left out | a share |",
        "| `end` | date, as in 2030-12-31, without quotes | left out | a last day |",
    ]
    assert "### `[inner]`" in page


def test_a_class_is_described_once() -> None:
    page = render([Chapter("First", "", Outer), Chapter("Second", "", Later)])
    assert page.count("some names") == 1
    assert "### `[other]`\n\nAs `[inner]` above." in page


def test_a_key_without_description_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="`mute` has no description"):
        render([Chapter("File", "", Silent)])
