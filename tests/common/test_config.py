from typing import Any, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from common.config import Names, StrictConfig, parse_config
from common.errors import ConfigError, Problem


class Inner(StrictConfig):
    rank: int = Field(4, ge=1)
    names: Names = ("a",)


class Outer(StrictConfig):
    rounds: int = Field(ge=1)
    rate: float = 0.5
    inner: Inner = Inner()


def problems(values: dict[str, Any]) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        parse_config(Outer, values, "run.toml")
    return {problem.where: problem for problem in caught.value.problems}


def test_a_good_table_becomes_a_config() -> None:
    config = parse_config(Outer, {"rounds": 3, "inner": {"names": ["x", "y"]}}, "run.toml")
    assert config == Outer(rounds=3, inner=Inner(names=("x", "y")))


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer(rounds=1).rounds = 2  # type: ignore[misc]


def test_every_problem_is_reported_at_once() -> None:
    found = problems({"rate": "fast", "inner": {"rank": 0, "extra": 1}, "more": 2})
    assert set(found) == {"rounds", "rate", "inner.rank", "inner.extra", "more"}


def test_the_message_counts_the_problems_and_names_the_file() -> None:
    with pytest.raises(ConfigError, match=r"^run\.toml has 1 problem$"):
        parse_config(Outer, {}, "run.toml")
    with pytest.raises(ConfigError, match=r"^run\.toml has 2 problems$") as caught:
        parse_config(Outer, {"more": 1}, "run.toml")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("key", "guess"), [("ruonds", "rounds"), ("Rate", "rate")])
def test_a_misspelt_key_gets_the_closest_one(key: str, guess: str) -> None:
    assert problems({"rounds": 1, key: 1})[key].hint == f"did you mean `{guess}`?"


def test_an_unknown_key_gets_the_keys_of_its_own_table() -> None:
    found = problems({"rounds": 1, "inner": {"zzzz": 1}})
    assert found["inner.zzzz"].rule == "is not a known key"
    assert found["inner.zzzz"].hint == "known keys here: names, rank"


def test_a_missing_key_is_named() -> None:
    assert problems({})["rounds"].rule == "is required"


@pytest.mark.parametrize(
    ("values", "where", "value"),
    [
        ({"rounds": True}, "rounds", "True"),
        ({"rounds": "3"}, "rounds", "'3'"),
        ({"rounds": 3.0}, "rounds", "3.0"),
        ({"rounds": 1, "rate": float("nan")}, "rate", "nan"),
        ({"rounds": 1, "rate": float("inf")}, "rate", "inf"),
        ({"rounds": 1, "inner": {"names": "abc"}}, "inner.names", "'abc'"),
    ],
)
def test_nothing_is_converted_silently(values: dict[str, Any], where: str, value: str) -> None:
    assert problems(values)[where].value == value


def test_long_values_are_cut_and_tables_are_not_printed() -> None:
    assert len(problems({"rounds": "x" * 1000})["rounds"].value) == 60
    assert problems({"rounds": {"a": 1}})["rounds"].value == ""


class Crossed(Outer):
    word: str = "a"

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.rounds > 5:
            raise ValueError("`rounds` x `inner.rank` must be at most 5, and `nothing` is no key")
        if self.rounds > 4:
            raise ValueError("there must be fewer")
        return self


@pytest.mark.parametrize(
    ("rounds", "where", "hint"),
    [
        (6, "rounds, inner.rank", "change `rounds` or `inner.rank`; docs/configuration.md lists what each may be"),
        (5, "(whole file)", "docs/configuration.md lists what each may be"),
    ],
)
def test_a_rule_about_several_keys_is_told_of_those_that_it_names(rounds: int, where: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Crossed, {"rounds": rounds}, "run.toml")
    (problem,) = caught.value.problems
    assert (problem.where, problem.hint) == (where, hint)


def test_defaults_are_checked_too() -> None:
    class Wrong(StrictConfig):
        rank: int = Field(0, ge=1)

    with pytest.raises(ConfigError):
        parse_config(Wrong, {}, "run.toml")
