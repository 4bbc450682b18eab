"""Each check of a coordinator's home both ways."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.checkup import Check, run_checks
from common.enrolment import federation_id
from common.identity import new_identity, public_name
from common.key_files import read_identity
from server.doctor import files as doctor_files
from server.doctor.files import (
    audit_findings,
    database_findings,
    key_findings,
    plan_findings,
    sequence_findings,
    settings_findings,
    site_findings,
    time_findings,
)
from server.home import CoordinatorHome
from server.sequences import Sequences
from tests.federation_play import COORDINATOR, make_federation

NOW = datetime.now(UTC)
RED, DAMAGED = ("fail", 3), ("fail", 13)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    """A coordinator with four sites, a signed plan, numbers of requests and a database."""
    folder = tmp_path_factory.mktemp("federation")
    base = folder / "base-of-a-plan"
    base.mkdir()
    (base / "config.json").write_bytes(b"{}")
    (base / "model.safetensors").write_bytes(b"weights")
    federation = make_federation(folder, base)
    federation.sign(approved=False)
    home = federation.coordinator
    public = public_name(read_identity(home.identity_key))
    Sequences(home.sequences, federation_id("play", public)).take(["a" * 64])
    with closing(sqlite3.connect(home.superlink_database)) as database:
        database.executescript("CREATE TABLE nodes (name TEXT); CREATE INDEX names ON nodes (name);")
        database.executemany("INSERT INTO nodes VALUES (?)", [("x" * 500,) for _ in range(100)])
        database.commit()
    return home


@pytest.fixture
def home(original: CoordinatorHome, tmp_path: Path) -> CoordinatorHome:
    """A copy of it, with a base of its own, to be broken."""
    shutil.copytree(original.path.parent / "base-of-a-plan", tmp_path / "base")
    copy = CoordinatorHome(Path(shutil.copytree(original.path, tmp_path / "home")))
    copy.config.write_text(COORDINATOR.format(base=tmp_path / "base"))
    return copy


LOOKS = {
    "permissions": lambda home: home.check_permissions(),
    "settings": settings_findings,
    "keys": key_findings,
    "certificates": lambda home: time_findings(home, NOW),
    "sites": site_findings,
    "audit": lambda home: audit_findings(home, datetime.now(UTC)),
    "sequences": sequence_findings,
    "database": database_findings,
    "plans": lambda home: plan_findings(home, datetime.now(UTC), deep=False),
}


def worst(home: CoordinatorHome) -> dict[str, tuple[str, int]]:
    """The worst level and code of each check that does not simply pass."""
    found = {}
    for name, look in LOOKS.items():
        checked = run_checks([Check(name, lambda look=look: look(home))], lambda _: None)
        level = max((one.finding.level for one in checked), key=("pass", "warn", "fail").index)
        if level != "pass":
            found[name] = (level, max(one.exit_code for one in checked))
    return found


def test_a_sound_home_passes_and_stays_as_it_is(home: CoordinatorHome) -> None:
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    assert worst(home) == {}
    assert {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()} == before


def test_plans_are_counted_as_a_person_says_it(home: CoordinatorHome) -> None:
    assert next(iter(LOOKS["plans"](home))).sentence == "1 plan signed, 1 valid now"


def test_a_new_home_passes(tmp_path: Path) -> None:
    home = make_federation(tmp_path, tmp_path, ()).coordinator
    home.config.write_text('name = "play"\naddress = "127.0.0.1:9999"\n')
    assert worst(home) == {}


def edit(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def damage(path: Path) -> None:
    """Overwrite a page of the index, as a failing disk does."""
    content = bytearray(path.read_bytes())
    content[8192 + 8 : 8192 + 600] = b"\xff" * 592
    path.write_bytes(content)


BROKEN = {
    "a folder that others may enter": (lambda home: home.sites.chmod(0o755), {"permissions": RED}),
    "a key that others may read": (lambda home: home.server_key.chmod(0o644), {"permissions": RED, "keys": RED}),
    "no public files": (
        lambda home: home.config.write_text(home.config.read_text() + '[public]\ntest = ["gone.csv"]\n'),
        {"settings": RED},
    ),
    "no base": (lambda home: shutil.rmtree(home.path.parent / "base"), {"settings": RED, "plans": RED}),
    "an address that moved": (
        lambda home: edit(home.config, b"127.0.0.1:9999", b"127.0.0.2:9999"),
        {"certificates": RED},
    ),
    "a key of another certificate": (lambda home: swap(home.server_key, home.superlink_key), {"keys": DAMAGED}),
    "a certificate that is none": (
        lambda home: home.superlink_certificate.write_text("certificate"),
        {"keys": DAMAGED, "certificates": DAMAGED},
    ),
    "an edited site": (
        lambda home: edit(home.site("a"), b'"site":"a"', b'"site":"z"'),
        {"sites": DAMAGED, "plans": DAMAGED},
    ),
    "a site that was withdrawn": (lambda home: home.site("a").unlink(), {"plans": ("warn", 0)}),
    "a missing audit log": (lambda home: home.audit.unlink(), {"audit": ("fail", 14)}),
    "an edited audit log": (lambda home: edit(home.audit, b"tester", b"nobody"), {"audit": DAMAGED}),
    "damaged numbers": (lambda home: home.sequences.write_text("{}"), {"sequences": DAMAGED}),
    "a database that is none": (lambda home: home.superlink_database.write_bytes(b"nothing" * 99), {"database": RED}),
    "a damaged database": (lambda home: damage(home.superlink_database), {"database": RED}),
    "an edited plan": (
        lambda home: edit(next(home.plans.glob("*.json")), b'"rounds":3', b'"rounds":4'),
        {"plans": DAMAGED},
    ),
    "a changed base": (
        lambda home: edit(home.path.parent / "base" / "model.safetensors", b"weights", b"weightS"),
        {"plans": RED},
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_home_turns_the_right_check_red(home: CoordinatorHome, fault: str) -> None:
    breaking, expected = BROKEN[fault]
    breaking(home)
    assert worst(home) == expected


def test_another_authority(home: CoordinatorHome, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_federation(tmp_path / "other", tmp_path / "base", ()).coordinator
    for name in ("server.key", "server.pem"):
        shutil.copy(other.keys / name, home.keys / name)
    assert worst(home) == {"keys": DAMAGED}


def test_another_identity_is_seen_by_all_that_it_signed(home: CoordinatorHome) -> None:
    home.identity_key.write_bytes(new_identity().private_bytes_raw())
    assert worst(home) == dict.fromkeys(("sites", "audit", "sequences", "plans"), DAMAGED)


@pytest.mark.parametrize(("days", "level"), [(0, "pass"), (710, "warn"), (740, "fail")])
def test_certificates_that_end(home: CoordinatorHome, days: int, level: str) -> None:
    levels = {finding.level for finding in time_findings(home, NOW + timedelta(days=days))}
    assert max(levels, key=("pass", "warn", "fail").index) == level


def test_a_clock_that_stands_before_the_logs_last_line(home: CoordinatorHome) -> None:
    found = list(audit_findings(home, datetime.now(UTC) - timedelta(minutes=10)))
    assert [finding.level for finding in found] == ["pass", "fail"]


def test_a_large_base_is_hashed_when_asked_only(home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_files, "HASHED_BYTES", 3)
    soon = datetime.now(UTC)
    assert [finding.level for finding in plan_findings(home, soon, deep=False)] == ["pass", "warn"]
    assert [finding.level for finding in plan_findings(home, soon, deep=True)] == ["pass", "pass"]


def test_a_database_that_takes_too_long(home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_files, "_DATABASE_SECONDS", -1.0)
    monkeypatch.setattr(doctor_files, "_STEPS", 1)
    assert [finding.level for finding in database_findings(home)] == ["warn"]
