import pytest

from common.audit_events import Resumed
from common.errors import ConfigError
from server.commands.options import home_at, open_audit, open_home, record
from tests.enrolment_play import make_coordinator


def test_a_home_is_opened_with_its_settings(tmp_path):
    made = make_coordinator(tmp_path)
    home, config = open_home(made.path)
    assert (home, config.name) == (made, "sepsis")


def test_without_a_home_the_hint_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError) as caught:
        open_home(tmp_path / "none")
    assert "cloister-coordinator init" in caught.value.hint


def test_a_home_is_a_whole_path_wherever_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    assert home_at(Path("here")).path == tmp_path / "here"


def test_nothing_is_recorded_where_no_log_was_begun(tmp_path):
    home = make_coordinator(tmp_path)
    with pytest.raises(Exception, match="audit"):
        record(home, Resumed(by="tester"))
    with pytest.raises(Exception, match="audit"):
        open_audit(home)
