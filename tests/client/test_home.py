from pathlib import Path

import pytest

from client.home import SiteHome, default_home
from common.errors import ConfigError

DIGEST = "ab" * 32


def test_each_thing_has_its_place():
    home = SiteHome(Path("h"))
    places = {
        home.config: "site.toml",
        home.identity_key: "keys/identity.key",
        home.node_key: "keys/node.key",
        home.join_request: "join-request.json",
        home.coordinator: "coordinator.json",
        home.ledger: "ledger.sqlite",
        home.ledger_anchor: "keys/ledger.anchor",
        home.audit: "audit.jsonl",
        home.audit_anchor: "keys/audit.anchor",
        home.inbox: "inbox.record",
        home.plan(DIGEST): f"plans/{DIGEST}.json",
        home.approval(DIGEST): f"approvals/{DIGEST}.json",
        home.run(DIGEST): f"runs/{DIGEST}",
        home.bases: "bases",
        home.lock: "node.lock",
        home.status: "status.json",
        home.paused: "paused",
    }
    assert {path.relative_to(home.path).as_posix() for path in places} == set(places.values())
    assert all(path == home.path / place for path, place in places.items())


def test_it_lies_with_the_users_own_data():
    assert default_home().parts[-2:] == ("cloister", "site")


def test_a_home_is_made_closed_and_only_once(tmp_path):
    home = SiteHome(tmp_path / "site")
    home.create(lambda draft: draft.config.write_text("mine"))
    assert {path.name for path in home.path.iterdir()} == {
        "site.toml",
        "keys",
        "plans",
        "approvals",
        "runs",
        "bases",
    }
    assert {path.stat().st_mode & 0o777 for path in (home.path, home.keys, home.plans, home.runs)} == {0o700}
    with pytest.raises(ConfigError, match="is not empty"):
        home.create()
    assert home.config.read_text() == "mine"


def test_loose_permissions_are_found(tmp_path):
    home = SiteHome(tmp_path / "site")
    home.create()
    assert [finding.level for finding in home.check_permissions()] == ["pass"]
    home.approvals.chmod(0o755)
    (finding,) = home.check_permissions()
    assert (finding.level, finding.mend) == ("fail", f"chmod 700 {home.approvals}")
