import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.doctor import doctor
from client.doctor.doctor import site_checks
from client.home import SiteHome
from common.checkup import Checked, run_checks
from tests.federation_play import make_federation

MOST_SECONDS = 2.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    folder = tmp_path_factory.mktemp("federation")
    return make_federation(folder, folder, ("a",)).sites["a"]


def run(home: SiteHome, **choices: bool) -> tuple[Checked, ...]:
    return run_checks(site_checks(home, datetime.now(UTC), **choices), lambda _: None)


def test_the_list_is_the_issues_list(home: SiteHome) -> None:
    asked = ["permissions", "settings", "keys", "coordinator", "ledger", "audit log", "inbox", "plans", "base models"]
    asked += ["libraries", "gradients", "masks", "noise", "disk", "ports", "proxy", "coordinator's port"]
    checks = site_checks(home, datetime.now(UTC))
    assert [check.subject for check in checks] == asked
    assert [check.subject for check in site_checks(home, datetime.now(UTC), offline=True)] == asked[:-1]
    codes = {check.subject: check.exit_code for check in checks}
    assert (codes["settings"], codes["coordinator's port"], codes["gradients"]) == (3, 4, 13)


def test_a_sound_site_passes_quickly_and_stays_as_it_is(home: SiteHome) -> None:
    import client.doctor.model  # noqa: F401 - loading torch takes seconds, and is not what is measured

    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    found = run(home, offline=True)
    levels = {(one.finding.subject, one.finding.level) for one in found}
    assert {level for subject, level in levels if subject != "disk"} == {"pass"}, levels
    assert max(one.seconds for one in found) < MOST_SECONDS
    assert {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()} == before


def test_a_coordinator_that_is_away_is_the_networks_fault(home: SiteHome) -> None:
    """The play's address is a port of this machine at which nobody listens."""
    begun = time.monotonic()
    failed = {one.finding.subject: one.exit_code for one in run(home) if one.exit_code}
    assert failed == {"coordinator's port": 4}
    assert time.monotonic() - begun < 10


def test_a_full_disk_is_found(home: SiteHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = doctor.Finding("fail", "disk", "0.1 GiB are free", "make room")
    monkeypatch.setattr(doctor, "room_finding", lambda _: full)
    assert {one.finding.subject: one.exit_code for one in run(home, offline=True) if one.exit_code} == {"disk": 3}
