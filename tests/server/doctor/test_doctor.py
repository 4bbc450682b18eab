from datetime import UTC, datetime

import pytest

from common.checkup import run_checks
from common.findings import Finding
from server.doctor import doctor
from server.doctor.doctor import coordinator_checks
from server.home import CoordinatorHome
from tests.federation_play import make_federation

MOST_SECONDS = 2.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    folder = tmp_path_factory.mktemp("federation")
    home = make_federation(folder, folder, ("a",)).coordinator
    home.config.write_text('name = "play"\naddress = "127.0.0.1:9999"\n')
    return home


def test_the_list_is_the_issues_list(home: CoordinatorHome) -> None:
    asked = ["permissions", "settings", "keys", "certificates", "sites", "audit log", "sequences", "database", "plans"]
    asked += ["libraries", "Flower", "disk", "ports", "gateway"]
    checks = {check.subject: check.exit_code for check in coordinator_checks(home, datetime.now(UTC))}
    assert list(checks) == asked
    assert (checks["settings"], checks["ports"], checks["database"]) == (3, 4, 13)


def test_a_sound_home_passes_quickly_and_stays_as_it_is(home: CoordinatorHome) -> None:
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    found = run_checks(coordinator_checks(home, datetime.now(UTC)), lambda _: None)
    # What else runs on this machine is not the home's business.
    levels = {(one.finding.subject, one.finding.level) for one in found if one.finding.subject not in ("disk", "ports")}
    assert {level for _, level in levels} == {"pass"}, levels
    assert max(one.seconds for one in found) < MOST_SECONDS
    assert {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()} == before


def test_a_full_disk_is_found(home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "room_finding", lambda _: Finding("fail", "disk", "0.1 GiB are free", "make room"))
    found = run_checks(coordinator_checks(home, datetime.now(UTC)), lambda _: None)
    assert ("disk", 3) in {(one.finding.subject, one.exit_code) for one in found}
