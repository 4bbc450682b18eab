import pytest

from common.errors import ConfigError
from server.config import load_coordinator_config
from server.home import CoordinatorHome
from server.initialise import initialise
from tests.enrolment_play import ADDRESS, NOW


def test_a_new_coordinator_has_everything_and_keeps_it_to_itself(tmp_path):
    home = CoordinatorHome(tmp_path / "home")
    config = initialise(home, "sepsis", "Study.Example.org:9443", NOW)
    assert load_coordinator_config(home.config) == config
    assert (config.name, config.address) == ("sepsis", ADDRESS)
    keys = {path.name for path in home.keys.glob("*.key")}
    assert keys == {"identity.key", "ca.key", "server.key", "superlink.key"}
    assert {path.stat().st_mode & 0o777 for path in home.keys.glob("*.key")} == {0o600}
    assert {path.name for path in home.keys.glob("*.pem")} == {"ca.pem", "server.pem", "superlink.pem"}
    assert [finding.level for finding in home.check_permissions()] == ["pass"]


def test_a_second_time_changes_nothing(tmp_path):
    home = CoordinatorHome(tmp_path / "home")
    initialise(home, "sepsis", ADDRESS, NOW)
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="is not empty"):
        initialise(home, "stroke", ADDRESS, NOW)
    assert {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "address"),
    [("", ADDRESS), ('s"\nx = 1', ADDRESS), ("s\u0435psis", ADDRESS), ("x" * 65, ADDRESS), ("sepsis", "host")],
)
def test_what_does_not_fit_makes_nothing(tmp_path, name, address):
    with pytest.raises(ConfigError):
        initialise(CoordinatorHome(tmp_path / "home"), name, address, NOW)
    assert list(tmp_path.iterdir()) == []
