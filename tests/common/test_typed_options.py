import pytest
from pydantic import Field

from common.config import Names, StrictConfig
from common.errors import UsageError
from common.typed_options import parse_typed


class Inner(StrictConfig):
    names: Names = ("a",)


class Outer(StrictConfig):
    rounds: int = Field(ge=1)
    round: int = Field(1, le=9)
    inner: Inner = Inner()


OPTIONS = {"rounds": "--rounds", "inner.names": "--called"}


def test_what_fits_becomes_a_config() -> None:
    assert parse_typed(Outer, {"rounds": 3}, OPTIONS) == Outer(rounds=3)


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"rounds": 0}, "--rounds must be at least 1 (found 0)", "give another value for --rounds"),
        (
            {"rounds": 1, "inner": {"names": ["a", 2]}},
            "--called must be text in quotes (found 2)",
            "give another value for --called",
        ),
        (
            {"rounds": 0, "inner": {"names": 1}},
            "--rounds must be at least 1 (found 0); --called must be a list in brackets (found 1)",
            "give another value for --rounds and --called",
        ),
        ({"rounds": 1, "round": 10}, "must be at most 9 (found 10)", "`--help` shows what each option takes"),
    ],
)
def test_what_does_not_fit_is_told_of_its_option(values: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_typed(Outer, values, OPTIONS)
    assert (caught.value.message, caught.value.hint) == (message, hint)
