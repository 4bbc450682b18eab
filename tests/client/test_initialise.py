import pytest

from client.config import SiteConfig
from client.home import SiteHome
from client.initialise import initialise, missing_records
from client.keys import node_key, site_identity
from common.errors import ConfigError
from common.identity import public_name


def test_a_new_site_has_keys_and_settings_that_only_its_owner_may_read(tmp_path):
    home = SiteHome(tmp_path / "site")
    initialise(home, "# Größe\n")
    assert home.config.read_text(encoding="utf-8") == "# Größe\n"
    assert site_identity(home)
    assert node_key(home)
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"site.toml", "identity.key", "node.key"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert [finding.level for finding in home.check_permissions()] == ["pass"]


def test_a_second_time_changes_nothing(tmp_path):
    home = SiteHome(tmp_path / "site")
    initialise(home, "first")
    before = public_name(site_identity(home))
    with pytest.raises(ConfigError, match="is not empty") as refused:
        initialise(home, "second")
    assert f"edit {home.config}" in refused.value.hint
    assert (public_name(site_identity(home)), home.config.read_text()) == (before, "first")


def test_what_is_no_home_is_no_home_to_edit(tmp_path):
    (tmp_path / "other").touch()
    with pytest.raises(ConfigError, match="is not empty") as refused:
        initialise(SiteHome(tmp_path), "first")
    assert "edit" not in refused.value.hint


def test_records_that_are_missing_are_named_with_the_setting(tmp_path):
    home = SiteHome(tmp_path / "site")
    config = SiteConfig.model_validate({"name": "north", "data": {"folder": "rows", "train": ["a.csv", "b.csv"]}})
    (folder,) = missing_records(home, config)
    assert f"the folder {home.path / 'rows'} is not there" in folder
    (home.path / "rows").mkdir(parents=True)
    (home.path / "rows" / "b.csv").touch()
    (file,) = missing_records(home, config)
    assert f"the file {home.path / 'rows' / 'a.csv'} is not there" in file
    (home.path / "rows" / "a.csv").touch()
    assert missing_records(home, config) == ()
