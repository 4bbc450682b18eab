import errno
import json
import os
import stat
from pathlib import Path

from client.keys import site_identity
from client.ledger.rows import Recovered as LedgerRecovered
from client.review import open_desk
from common.armour import TEXT_LIMIT
from common.audit import AuditLog, verify_audit
from common.documents import read_document_file
from common.enrolment import JoinRequest
from common.file_lock import alone
from tests.audit_events import MESSAGE_OUT
from tests.client.commands.test_plans import kinds, ledger, reserve
from tests.site_commands import FEDERATION, Ended, Play

REASON = "disk replaced, restored from the backup of the 18th"


# --- verify ---


def test_verify_finds_a_sound_site_sound(joined: Play) -> None:
    ended = joined("verify")
    assert (ended.code, ended.err) == (0, "")
    assert "7 pass, 0 warn, 0 fail" in ended.out


def test_verify_gives_what_to_keep_elsewhere_and_to_check_the_log_with(joined: Play) -> None:
    last = json.loads(joined.site.audit.read_text().splitlines()[-1])
    words = f"the last is number {last['number']}, hash {last['hash'][:24]}…"
    assert words in joined("verify").out
    assert words in joined("report").out
    (log,) = [one for one in json.loads(joined("verify", "--json").out) if one["subject"] == "audit log"]
    assert log["head"] == {"number": last["number"], "hash": last["hash"]}
    assert verify_audit(joined.site.audit, joined.site.audit_anchor, log["public_key"]).head.hash == last["hash"]
    asked = read_document_file(JoinRequest, joined.site.join_request, "join request", TEXT_LIMIT)
    assert log["public_key"] == asked.identity


def test_verify_tells_damage_from_rollback(joined: Play) -> None:
    joined.site.ledger.unlink()
    ended = joined("verify")
    assert ended.code == 13
    assert "ledger did not pass" in ended.err
    joined.site.audit.unlink()
    assert joined("verify").code == 14
    levels = {one["subject"]: one["level"] for one in json.loads(joined("verify", "--json").out)}
    assert levels["ledger"] == levels["audit log"] == "fail"
    assert levels["plans"] == "pass"


def test_verify_works_while_the_node_holds_the_ledger(joined: Play) -> None:
    with alone(joined.site.lock), ledger(joined):
        ended = joined("verify")
        levels = {one["subject"]: one["level"] for one in json.loads(joined("verify", "--json").out)}
    assert ended.code == 0
    assert "not compared now" in ended.out
    assert [what for what, level in levels.items() if level != "pass"] == ["books together"]


# --- report ---


def test_report_goes_to_stdout_as_markdown(joined: Play) -> None:
    reserve(joined, joined.approved())
    ended = joined("report")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("# What left north")
    assert FEDERATION in ended.out
    assert joined.fingerprint in ended.out
    assert "15.4 %" in ended.out


def test_report_into_a_folder_is_two_private_files(joined: Play, tmp_path: Path) -> None:
    ended = joined("report", "--output", tmp_path / "a" / "b")
    assert (ended.code, ended.out) == (0, "")
    files = sorted((tmp_path / "a" / "b").iterdir())
    assert [path.name for path in files] == ["report.html", "report.md"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_report_that_a_full_disk_did_not_take_leaves_nothing(joined: Play, tmp_path: Path, monkeypatch) -> None:
    fsync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    ended = joined("report", "--output", tmp_path / "a" / "b")
    assert ended.code == 1
    assert f"{tmp_path / 'a' / 'b' / 'report.html'}: No space left on device" in ended.err.replace("\n", "")
    assert not (tmp_path / "a").exists()


def test_a_report_over_broken_books_says_so_and_fails(joined: Play) -> None:
    joined.site.ledger.unlink()
    ended = joined("report")
    assert ended.code == 13
    assert "Do not rely on this page" in ended.out
    assert "not to be relied on" in ended.err


def test_every_message_can_be_listed(joined: Play) -> None:
    assert joined("report", "--messages") == Ended(0, "", "")
    log = AuditLog(joined.site.audit, joined.site.audit_anchor, site_identity(joined.site))
    log.record(MESSAGE_OUT)
    log.record(MESSAGE_OUT)
    first, second = joined("report", "--messages").out.splitlines()
    assert MESSAGE_OUT.digest in first
    assert first < second
    ended = joined("report", "--messages", "--json")
    assert [json.loads(line)["size_bytes"] for line in ended.out.splitlines()] == [13, 13]


def test_messages_out_of_a_damaged_log_are_not_shown_without_a_word(joined: Play) -> None:
    log = AuditLog(joined.site.audit, joined.site.audit_anchor, site_identity(joined.site))
    log.record(MESSAGE_OUT)
    log.record(MESSAGE_OUT)
    lines = joined.site.audit.read_bytes().splitlines(keepends=True)
    joined.site.audit.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b"coordinator", b"coordinatox")]))
    ended = joined("report", "--messages")
    assert (ended.code, len(ended.out.splitlines())) == (13, 1)
    assert "not to be relied on" in ended.err


def test_messages_and_the_page_are_two_things(joined: Play, tmp_path: Path) -> None:
    assert joined("report", "--json").code == 2
    assert joined("report", "--messages", "--output", tmp_path / "here").code == 2
    assert not (tmp_path / "here").exists()


def test_a_new_site_has_a_report_too(play: Play) -> None:
    play.init()
    assert play("report").code == 0


# --- recover ---


def test_recover_charges_the_worst_case_in_writing(joined: Play) -> None:
    reserve(joined, joined.approved())
    ended = joined("recover", "--reason", REASON, "--yes")
    assert ended.code == 0
    assert "worst case" in ended.err
    books = open_desk(joined.site).books
    assert [balance.left for balance in books.balances()] == [0.0]
    assert [row.meaning.reason for row in books.view.rows if isinstance(row.meaning, LedgerRecovered)] == [REASON]
    assert kinds(joined)[-1] == "Recovered"
    assert list(joined.site.path.glob("ledger.sqlite.set-aside-*"))
    assert joined("verify").code == 0


def test_recover_needs_a_yes(joined: Play, monkeypatch) -> None:
    assert joined("recover", "--reason", REASON).code == 2
    assert joined("recover", "--reason", REASON, "--dry-run").code == 0
    monkeypatch.setattr("client.commands.books.can_ask", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert joined("recover", "--reason", REASON).code == 0
    assert [balance.left for balance in open_desk(joined.site).books.balances()] == [10.0]


def test_recover_mends_a_lost_ledger_and_a_lost_log(joined: Play) -> None:
    joined.site.ledger.unlink()
    joined.site.audit.unlink()
    ended = joined("recover", "--reason", REASON, "--yes")
    assert ended.code == 0
    assert "put aside" in ended.err
    assert kinds(joined) == ["Recovered", "Recovered"]
    assert [balance.left for balance in open_desk(joined.site).books.balances()] == [0.0]


def test_recover_does_not_touch_the_books_of_a_running_node(joined: Play) -> None:
    with alone(joined.site.lock):
        ended = joined("recover", "--reason", REASON, "--yes")
    assert ended.code == 2
    assert "stop" in ended.err


def test_a_recovery_needs_a_reason(joined: Play) -> None:
    assert joined("recover", "--yes").code == 2
    assert joined("recover", "--reason", "", "--yes").code == 3
    assert [balance.left for balance in open_desk(joined.site).books.balances()] == [10.0]
