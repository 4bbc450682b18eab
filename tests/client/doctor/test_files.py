"""Each check of a home both ways: a sound home passes, and each thing that is broken in it turns one check red."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.approvals import approve
from client.doctor import files as doctor_files
from client.doctor.files import (
    audit_findings,
    base_findings,
    coordinator_findings,
    inbox_findings,
    key_findings,
    ledger_findings,
    plan_findings,
    settings_findings,
)
from client.enrolment import read_pinned
from client.home import SiteHome
from client.inbox_record import InboxRecord
from client.initialise import initialise
from client.keys import site_identity
from client.opening import open_site
from client.status import StatusBoard
from common.audit import AuditLog
from common.audit_events import AdminCommand
from common.base_files import identify_base
from common.checkup import Check, run_checks
from common.identity import new_identity
from common.moments import current_moment
from common.signed_plan import sign_plan, write_signed_plan
from tests.federation_play import make_federation
from tests.plans import make_plan

NOW = datetime.now(UTC)
NAMES = ("a", "b", "c", "d")


def make_base(folder: Path, text: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(text)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    """A site that is enrolled and holds an approved plan and its base; beside it is the site b."""
    folder = tmp_path_factory.mktemp("federation")
    federation = make_federation(folder, make_base(folder / "original"), NAMES)
    home, signed = federation.sites["a"], federation.sign()
    home.plan(signed.digest).write_bytes(write_signed_plan(signed))
    shutil.copytree(federation.base, home.bases / signed.plan.base.digest)
    return home


@pytest.fixture
def home(original: SiteHome, tmp_path: Path) -> SiteHome:
    """A copy of it, to be broken."""
    return SiteHome(Path(shutil.copytree(original.path, tmp_path / "home")))


@pytest.fixture
def other_node_key(original: SiteHome) -> Path:
    return original.path.parent.parent / "b" / "home" / "keys" / "node.key"


LOOKS = {
    "permissions": lambda home: home.check_permissions(),
    "settings": settings_findings,
    "keys": key_findings,
    "coordinator": lambda home: coordinator_findings(home, NOW),
    "ledger": lambda home: ledger_findings(home, datetime.now(UTC)),
    "audit": audit_findings,
    "inbox": inbox_findings,
    "plans": lambda home: plan_findings(home, datetime.now(UTC)),
    "bases": lambda home: base_findings(home, deep=False),
}


def worst(home: SiteHome) -> dict[str, tuple[str, int]]:
    """The worst level and code of each check that does not simply pass."""
    found = {}
    for name, look in LOOKS.items():
        checked = run_checks([Check(name, lambda look=look: look(home))], lambda _: None)
        level = max((one.finding.level for one in checked), key=("pass", "warn", "fail").index, default="pass")
        if level != "pass":
            found[name] = (level, max(one.exit_code for one in checked))
    return found


def sentences(findings) -> str:
    return "\n".join(f"{finding.level}: {finding.sentence}" for finding in findings)


def files_of(home: SiteHome) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}


def test_a_sound_home_passes_and_stays_as_it_is(home: SiteHome) -> None:
    before = files_of(home)
    assert worst(home) == {}
    assert files_of(home) == before
    assert "1 plan is kept, 1 of them valid now, and 1 approved" in sentences(LOOKS["plans"](home))


def test_a_site_that_has_not_joined_yet_is_warned_only(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "new")
    initialise(home, 'name = "new"\n[data]\ntrain = ["rows.csv"]\n')
    (home.path / "rows.csv").touch()
    found = {name: look for name, look in worst(home).items() if name not in ("ledger", "audit")}
    assert found == {"coordinator": ("warn", 0)}


def edit(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def only(home: SiteHome, folder: str, pattern: str = "*.json") -> Path:
    (path,) = (home.path / folder).glob(pattern)
    return path


def other_key(home: SiteHome) -> None:
    home.identity_key.write_bytes(new_identity().private_bytes_raw())


def strange_plan(home: SiteHome) -> None:
    """Sound, and signed by somebody else."""
    signed = sign_plan(make_plan(), "f" * 64, current_moment(), current_moment() + timedelta(days=1), new_identity())
    home.plan(signed.digest).write_bytes(write_signed_plan(signed))


def lone_approval(home: SiteHome) -> None:
    approve(home, "b" * 64, "tester", current_moment() + timedelta(days=1))
    home.approval("b" * 64).rename(home.approval("c" * 64))


RED = ("fail", 3)
BROKEN = {
    "a key that others may read": (
        lambda home: home.node_key.chmod(0o640),
        dict.fromkeys(("permissions", "keys"), RED),
    ),
    "a folder that others may enter": (lambda home: home.plans.chmod(0o755), {"permissions": RED}),
    "an unknown setting": (
        lambda home: home.config.write_text(home.config.read_text() + "\n[policy2]\n"),
        {"settings": RED},
    ),
    "no data file": (lambda home: edit(home.config, b"rows.csv", b"gone.csv"), {"settings": RED}),
    "another name": (lambda home: edit(home.config, b'name = "a"', b'name = "z"'), {"settings": RED}),
    "a node key that is none": (lambda home: home.node_key.write_bytes(b"key"), {"keys": ("fail", 13)}),
    "a missing ledger": (lambda home: home.ledger.unlink(), {"ledger": ("fail", 13)}),
    "a missing anchor": (lambda home: home.ledger_anchor.unlink(), {"ledger": ("fail", 13)}),
    "a missing audit log": (lambda home: home.audit.unlink(), {"audit": ("fail", 14)}),
    "an edited audit log": (lambda home: edit(home.audit, b"tester", b"nobody"), {"audit": ("fail", 13)}),
    "a torn audit log": (
        lambda home: home.audit.write_bytes(home.audit.read_bytes() + b'{"number":'),
        {"audit": ("warn", 0)},
    ),
    "a missing inbox": (lambda home: home.inbox.unlink(), {"inbox": ("fail", 13)}),
    "a damaged inbox": (lambda home: flip(home.inbox), {"inbox": ("fail", 13)}),
    "an edited plan": (
        lambda home: edit(only(home, "plans"), b'"rounds":3', b'"rounds":4'),
        {"plans": ("fail", 13), "bases": ("fail", 13)},
    ),
    "somebody else's plan": (strange_plan, {"plans": ("fail", 13), "bases": ("fail", 13)}),
    "an approval of another plan": (lone_approval, {"plans": RED}),
    "an edited approval": (lambda home: flip(only(home, "approvals")), {"plans": ("fail", 13)}),
    "a changed base": (lambda home: flip(next(home.bases.glob("*/model.safetensors"))), {"bases": RED}),
    "a base with one more file of weights": (
        lambda home: (next(home.bases.iterdir()) / "more.safetensors").touch(),
        {"bases": RED},
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_home_turns_the_right_check_red(home: SiteHome, fault: str) -> None:
    breaking, expected = BROKEN[fault]
    breaking(home)
    assert worst(home) == expected


def test_another_node_key(home: SiteHome, other_node_key: Path) -> None:
    shutil.copy(other_node_key, home.node_key)
    assert worst(home) == {"keys": RED}


def test_what_rests_on_an_edited_pin_says_so_too(home: SiteHome) -> None:
    flip(home.coordinator)
    assert worst(home) == dict.fromkeys(("settings", "coordinator", "inbox", "plans", "bases"), ("fail", 13))


def test_another_identity_is_seen_by_everything_that_it_signed(home: SiteHome) -> None:
    other_key(home)
    found = worst(home)
    assert found.keys() >= {"keys", "coordinator", "ledger", "audit", "inbox", "plans"}
    assert all(level == "fail" for level, _ in found.values())


def test_an_older_ledger_is_a_rollback(home: SiteHome, tmp_path: Path) -> None:
    shutil.copy(home.ledger, tmp_path / "older")
    with open_site(home, StatusBoard(home.status)):
        pass  # it writes the budgets down
    shutil.copy(tmp_path / "older", home.ledger)
    assert worst(home) == {"ledger": ("fail", 14)}


def test_an_older_audit_log_is_a_rollback(home: SiteHome, tmp_path: Path) -> None:
    shutil.copy(home.audit, tmp_path / "older")
    for _ in range(3):
        AuditLog(home.audit, home.audit_anchor, site_identity(home)).record(AdminCommand(command="review", by="tester"))
    shutil.copy(tmp_path / "older", home.audit)
    assert worst(home) == {"audit": ("fail", 14)}


def test_a_clock_that_stands_before_the_ledgers_last_entry(home: SiteHome) -> None:
    found = sentences(ledger_findings(home, datetime.now(UTC) - timedelta(minutes=10)))
    assert "fail: the clock says" in found


def test_a_clock_that_was_moved_back_between_lines(home: SiteHome) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    log = AuditLog(home.audit, home.audit_anchor, site_identity(home), clock=lambda: past)
    log.record(AdminCommand(command="review", by="tester"))
    assert "warn: the clock was moved back once" in sentences(audit_findings(home))


def test_a_kept_answer_that_is_missing(home: SiteHome) -> None:
    about = read_pinned(home).invitation
    record = InboxRecord(home.inbox, about.federation, about.site)
    record.begin(1, "a" * 64)
    record.keep_reply("a" * 64, b"reply")
    assert worst(home) == {}
    home.inbox.with_suffix(".reply").unlink()
    assert worst(home) == {"inbox": ("fail", 13)}


@pytest.mark.parametrize(("days", "level"), [(0, "pass"), (3652 - 29, "warn"), (3653, "fail")])
def test_the_end_of_the_authority(home: SiteHome, days: int, level: str) -> None:
    look = Check("coordinator", lambda: coordinator_findings(home, NOW + timedelta(days=days)))
    assert [one.finding.level for one in run_checks([look], lambda _: None)] == [level]


def test_a_large_base_is_hashed_when_asked_only(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_files, "HASHED_BYTES", 3)
    assert [finding.level for finding in base_findings(home, deep=False)] == ["warn"]
    assert [finding.level for finding in base_findings(home, deep=True)] == ["pass"]


def test_a_base_that_no_plan_names_any_more_is_known_by_its_own_name(home: SiteHome, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", b"other weights")
    shutil.copytree(other, home.bases / identify_base(other, "x").digest)
    assert [finding.level for finding in base_findings(home, deep=False)] == ["pass", "pass"]
    shutil.copytree(other, home.bases / ("d" * 64))
    assert sorted(finding.level for finding in base_findings(home, deep=False)) == ["fail", "pass", "pass"]
