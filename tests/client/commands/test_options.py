import pytest

from client.commands.options import chosen_home, existing_home
from client.home import default_home
from common.errors import ConfigError


def test_the_home_is_the_account_s_unless_said_otherwise(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert chosen_home(None).path == default_home()
    assert chosen_home(tmp_path / "x").path == tmp_path / "x"


def test_a_relative_home_is_made_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    assert existing_home((tmp_path / "x").relative_to(tmp_path)).path == tmp_path / "x"


def test_a_home_that_is_not_there_is_an_error_with_the_next_step(tmp_path) -> None:
    with pytest.raises(ConfigError, match="there is no site") as error:
        existing_home(tmp_path / "x")
    assert "init" in error.value.hint
