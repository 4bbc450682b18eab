import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.keys import site_identity
from client.review import open_desk
from client.verification import verify_site
from common.audit import AuditLog
from common.audit_events import Paused
from common.file_lock import alone
from tests.client.commands.test_plans import reserve
from tests.site_commands import Play


@pytest.fixture
def joined(tmp_path: Path) -> Play:
    play = Play(tmp_path).join()
    play.approved()
    return play


def broken(play: Play) -> dict[str, int]:
    return {one.check.what: one.exit_code for one in verify_site(play.site) if not one.check.holds}


def skipped(play: Play) -> list[str]:
    return [one.check.what for one in verify_site(play.site) if not one.check.looked]


def test_a_sound_site_holds_and_is_left_as_it_was(joined: Play) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(joined.site.path.rglob("*")) if path.is_file()}

    before = content()
    assert broken(joined) == {}
    assert content() == before


def test_a_new_site_holds_too(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.init()
    assert broken(play) == {}


def edit(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("name", ["ledger", "ledger_anchor"])
def test_a_lost_ledger_or_anchor_is_damage(joined: Play, name: str) -> None:
    getattr(joined.site, name).unlink()
    assert broken(joined) == {"ledger": 13}


def test_a_lost_log_is_a_rollback(joined: Play) -> None:
    joined.site.audit.unlink()
    assert broken(joined)["audit log"] == 14


def test_an_older_log_is_a_rollback(joined: Play) -> None:
    shutil.copy(joined.site.audit, joined.folder / "older")
    joined("pause")
    shutil.copy(joined.folder / "older", joined.site.audit)
    assert broken(joined)["audit log"] == 14


def test_a_ledger_put_back_with_its_anchor_is_seen_beside_the_log(joined: Play) -> None:
    """Each fits its anchor; that it is older than the others shows in their comparison alone."""
    kept = {path: path.read_bytes() for path in (joined.site.ledger, joined.site.ledger_anchor)}
    (path,) = joined.site.plans.iterdir()
    reserve(joined, open_desk(joined.site).find(path.stem))
    assert broken(joined) == {}
    for path, content in kept.items():
        path.write_bytes(content)
    with alone(joined.site.lock):
        assert broken(joined) == {}  # a node that runs writes between two looks; it compared them when it started
    assert broken(joined) == {"books together": 14}


def test_an_edited_log_is_damage(joined: Play) -> None:
    edit(joined.site.audit, b'"command":"init"', b'"command":"stop"')
    assert broken(joined) == {"audit log": 13}
    assert skipped(joined) == ["record of requests", "books together"]


def test_a_lost_record_of_requests_is_damage(joined: Play) -> None:
    joined.site.inbox.unlink()
    assert broken(joined) == {"record of requests": 13}


@pytest.mark.parametrize("folder", ["plans", "approvals"])
def test_a_file_under_another_name_or_edited_is_damage(joined: Play, folder: str) -> None:
    (path,) = getattr(joined.site, folder).iterdir()
    other = path.with_name(f"{'0' * 64}.json")
    path.rename(other)
    assert broken(joined) == {folder: 13}
    other.rename(path)
    assert broken(joined) == {}
    edit(path, b'"digest":"', b'"digest":"0')
    assert broken(joined) == {folder: 13}


def test_an_exchanged_coordinator_is_damage(joined: Play) -> None:
    edit(joined.site.coordinator, b"127.0.0.1:9443", b"127.0.0.1:9444")
    assert broken(joined) == {"coordinator": 13}
    assert skipped(joined) == ["record of requests", "plans", "books together"]


def test_a_clock_that_was_moved_back_is_a_warning(joined: Play) -> None:
    early = datetime(2026, 1, 1, tzinfo=UTC)
    log = AuditLog(joined.site.audit, joined.site.audit_anchor, site_identity(joined.site), clock=lambda: early)
    log.record(Paused(by="someone"))
    (warned,) = [one for one in verify_site(joined.site) if one.level != "pass"]
    assert (warned.check.what, warned.level, warned.exit_code) == ("audit log", "warn", 0)
    assert "; the clock was moved back once;" in warned.check.finding
    assert "time service" in warned.hint
