import pytest

from client.home import SiteHome
from client.initialise import initialise
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
    with pytest.raises(ConfigError, match="is not empty"):
        initialise(home, "second")
    assert (public_name(site_identity(home)), home.config.read_text()) == (before, "first")
