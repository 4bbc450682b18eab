import pytest
from jinja2 import UndefinedError

from common.config_template import fill_template


def test_values_become_toml() -> None:
    text = fill_template("client", "site.toml.jinja", name='a"b', folder="x", train=["1.csv", "2.csv"], dataset="d")
    assert 'name = "a\\"b"' in text
    assert 'train = ["1.csv", "2.csv"]' in text
    assert text.endswith("\n")


def test_a_place_without_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        fill_template("client", "site.toml.jinja", name="a")
