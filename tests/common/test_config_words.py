from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from common.config import Names, StrictConfig, parse_config
from common.enrolment import FederationName
from common.errors import ConfigError
from common.plan import Hexadecimal, SiteName


class Everything(StrictConfig):
    above: float = Field(1.0, gt=0)
    least: int = Field(1, ge=1)
    below: float = Field(0.5, lt=1)
    most: int = Field(1, le=1_000_000)
    one_of: Literal["a", "b"] = "a"
    some: Names = Field(("a", "b"), min_length=1)
    several: Names = Field(("a", "b"), min_length=2, max_length=3)
    text: str = Field("ab", min_length=1, max_length=2)
    site: SiteName = "a"
    federation: FederationName = "a"
    key: Hexadecimal = "0" * 64
    odd: Annotated[str, Field(pattern="^x$")] = "x"
    switch: bool = True


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("above", 0.0, "must be above 0"),
        ("above", float("inf"), "must be a finite number"),
        ("least", 0, "must be at least 1"),
        ("below", 1.0, "must be below 1"),
        ("most", 1_000_001, "must be at most 1,000,000"),
        ("one_of", "c", "must be 'a' or 'b'"),
        ("some", [], "must have at least 1 entry"),
        ("several", ["a"], "must have at least 2 entries"),
        ("several", list("abcd"), "must have at most 3 entries"),
        ("text", "", "must have at least 1 letter"),
        ("text", "abc", "must have at most 2 letters"),
        ("site", "we st", "must be made of letters, digits, dots, - and _, with a letter or digit first, 64 at most"),
        ("federation", "", "must be made of letters, digits, dots, - and _, with a letter or digit first, 64 at most"),
        ("key", "xyz", "must be 64 hexadecimal digits in small letters"),
        ("odd", "y", "must be as the pattern ^x$ says"),
        ("switch", "yes", "must be true or false, without quotes"),
    ],
)
def test_a_rule_is_told_in_the_words_of_who_writes_the_file(key: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Everything, {key: value}, "run.toml")
    assert [problem.rule for problem in caught.value.problems] == [rule]
