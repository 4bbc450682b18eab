from pathlib import Path

import pytest

from common.errors import ConfigError
from server.home import CoordinatorHome, default_home

DIGEST = "ab" * 32


def test_each_thing_has_its_place():
    home = CoordinatorHome(Path("h"))
    places = {
        home.config: "coordinator.toml",
        home.identity_key: "keys/identity.key",
        home.ca_key: "keys/ca.key",
        home.ca_certificate: "keys/ca.pem",
        home.server_key: "keys/server.key",
        home.server_certificate: "keys/server.pem",
        home.superlink_key: "keys/superlink.key",
        home.superlink_certificate: "keys/superlink.pem",
        home.site("north"): "sites/north.json",
        home.plan(DIGEST): f"plans/{DIGEST}.json",
        home.bases: "bases",
        home.superlink_database: "superlink.db",
        home.superlink_log: "superlink.log",
        home.audit: "audit.jsonl",
        home.audit_anchor: "keys/audit.anchor",
        home.sequences: "sequences.json",
        home.run("study", DIGEST): "runs/study-abababab",
    }
    assert {path.relative_to(home.path).as_posix() for path in places} == set(places.values())
    assert all(path == home.path / place for path, place in places.items())


def test_it_lies_with_the_users_own_data():
    assert default_home().parts[-2:] == ("cloister", "coordinator")


def test_a_home_is_made_closed_and_only_once(tmp_path):
    home = CoordinatorHome(tmp_path / "coordinator")
    home.create()
    assert {path.name for path in home.path.iterdir()} == {"keys", "sites", "plans", "bases", "runs"}
    assert {path.stat().st_mode & 0o777 for path in (home.path, *home.path.iterdir())} == {0o700}
    with pytest.raises(ConfigError, match="is not empty"):
        home.create()


def test_loose_permissions_are_found(tmp_path):
    home = CoordinatorHome(tmp_path / "coordinator")
    home.create(lambda draft: draft.ca_key.touch(mode=0o600))
    assert [finding.level for finding in home.check_permissions()] == ["pass"]
    home.ca_key.chmod(0o644)
    (finding,) = home.check_permissions()
    assert (finding.level, finding.mend) == ("fail", f"chmod 600 {home.ca_key}")
