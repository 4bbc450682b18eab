import errno
import os
import sqlite3
from dataclasses import replace

import pytest

import client.ledger.recovery
import common.files
from client.ledger.anchor import Anchor, write_anchor
from client.ledger.file import LedgerFile
from client.ledger.rows import Recovered, new_row
from common.errors import BudgetError, ConfigError, IntegrityError, RollbackError, TryAgainError
from tests.client.ledger_site import (
    BUDGET,
    ORDER,
    OTHER_HOST,
    OTHER_PLAN,
    PLAN,
    Site,
    reserve,
)


@pytest.fixture
def site(tmp_path):
    """A site that has reserved a plan and begun a round: four entries."""
    made = Site(tmp_path / "site").create()
    with made.open() as ledger:
        reserve(ledger)
        ledger.commit(PLAN, 1, ORDER)
    return made


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- beginning -------------------------------------------------------------------------------------------------------


def test_a_ledger_begins_with_one_entry_and_its_anchor(tmp_path):
    site = Site(tmp_path / "site").create()
    assert [row.kind for row in site.read().rows] == ["opened"]
    assert site.anchor.exists()


@pytest.mark.parametrize("gone", ["nothing", "ledger", "anchor"])
def test_it_is_never_begun_in_the_place_of_another(site, gone):
    if gone != "nothing":
        (site.path if gone == "ledger" else site.anchor).unlink()
    with pytest.raises(IntegrityError, match="there is a ledger already"):
        site.create()
    assert site.path.exists() == (gone != "ledger")
    assert site.anchor.exists() == (gone != "anchor")


def test_a_beginning_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    site = Site(tmp_path / "site")
    with monkeypatch.context() as patch:
        patch.setattr(client.ledger.recovery, "create_file", full)
        with pytest.raises(OSError, match="No space"):
            site.create()
    with pytest.raises(IntegrityError, match="is missing"):
        site.open()
    with monkeypatch.context() as patch:
        writes = []
        write = write_anchor

        def second_fails(*arguments):
            writes.append(arguments)
            return full() if len(writes) == 2 else write(*arguments)

        patch.setattr(client.ledger.recovery, "write_anchor", second_fails)
        with pytest.raises(OSError, match="No space"):
            site.create()
    rows = site.read().rows
    site.create()
    with site.open() as ledger:
        assert ledger.entries()[:1] == rows


def test_an_anchor_of_another_machine_is_no_beginning(tmp_path):
    site = Site(tmp_path / "site")
    write_anchor(site.anchor, Anchor(host=OTHER_HOST), site.identity)
    with pytest.raises(IntegrityError, match="there is a ledger already"):
        site.create()


# --- recovering ------------------------------------------------------------------------------------------------------


def lose_ledger(site):
    site.path.unlink()


def lose_anchor(site):
    site.anchor.unlink()


def lose_both(site):
    site.path.unlink()
    site.anchor.unlink()


def shorten(site):
    site.sql("DELETE FROM entries WHERE sequence = 4")


def edit(site):
    site.sql("UPDATE entries SET content = replace(content, '1', '2') WHERE sequence = 1")


def truncate(site):
    site.path.write_bytes(site.path.read_bytes()[:100])


def damage_anchor(site):
    site.anchor.write_bytes(b"?")


def move(site):
    site.host = OTHER_HOST


FAULTS = [lose_ledger, lose_anchor, lose_both, shorten, edit, truncate, damage_anchor, move]
READABLE = {lose_anchor, shorten, edit, damage_anchor, move}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_recovery_charges_the_worst_case_whatever_happened(site, fault):
    fault(site)
    with pytest.raises((IntegrityError, RollbackError)) as refusal:
        site.open()
    site.recover("see the incident of today")
    entry = site.read().rows[-1].meaning
    assert (entry.reason, entry.finding) == ("see the incident of today", refusal.value.message)
    assert (PLAN in entry.plans) == (fault in READABLE)
    with site.open(BUDGET, replace(BUDGET, dataset="images")) as ledger:
        for dataset in ("records", "images"):
            assert ledger.balance(dataset, "patient").left == 0
            assert ledger.balance(dataset, "patient").share == 1
        with pytest.raises(BudgetError):
            reserve(ledger, OTHER_PLAN)
        with pytest.raises(BudgetError):
            ledger.commit(PLAN, 2, ORDER)
    with site.open(replace(BUDGET, epsilon=8.0), replace(BUDGET, dataset="images")) as raised:
        assert raised.balance("records", "patient").left == pytest.approx(3.0)
        reserve(raised, OTHER_PLAN)


def test_the_old_file_is_kept_beside_the_new_one(site):
    content = site.path.read_bytes()
    site.anchor.unlink()
    kept = site.recover()
    assert kept.name.startswith("ledger.sqlite.set-aside-")
    assert kept.read_bytes() == content
    site.path.unlink()
    assert site.recover() is None


def test_what_the_old_file_knew_is_not_forgotten(site):
    """The largest budget that ever was counts as spent, also where the config is smaller at the recovery."""
    with site.open(replace(BUDGET, epsilon=9.0)), pytest.raises(TryAgainError):
        site.recover()
    site.open(replace(BUDGET, epsilon=4.0)).close()
    site.anchor.unlink()
    site.recover()
    with site.open(replace(BUDGET, epsilon=4.0)) as ledger:
        assert ledger.balance("records", "patient").spent == pytest.approx(9.0)
    with site.open(replace(BUDGET, epsilon=9.5)) as ledger:
        assert ledger.balance("records", "patient").left == pytest.approx(0.5)
        with pytest.raises(BudgetError, match="from before a recovery"):
            reserve(ledger)


def test_a_recovery_of_a_recovery_knows_the_same(site):
    site.anchor.unlink()
    site.recover()
    site.anchor.unlink()
    site.recover("again")
    assert site.read().rows[-1].meaning.plans == (PLAN,)
    assert site.open(replace(BUDGET, epsilon=5.5)).balance("records", "patient").left == pytest.approx(0.5)


def test_a_sound_ledger_can_be_recovered_when_the_witness_says_so(site):
    site.recover("the coordinator remembers more than this site")
    assert site.read().rows[-1].meaning.finding == "the files fit together"


def test_entries_that_this_site_did_not_sign_or_does_not_know_count_for_nothing(site, monkeypatch):
    row = new_row(site.read().rows[-1], Recovered(reason="of the future", finding=""), site.clock(), site.identity)
    with monkeypatch.context() as patch:
        patch.setitem(client.ledger.rows._NAMES, Recovered, "unheard")
        future = new_row(row, Recovered(reason="of the future", finding=""), site.clock(), site.identity)
    forged = replace(row, sequence=7, content=row.content.replace("[]", f'["{OTHER_PLAN}"]'))
    for one in (row, future, forged):
        LedgerFile(site.path).append(one)
    site.recover()
    assert site.read().rows[-1].meaning.plans == (PLAN,)


def test_a_journal_of_the_old_file_does_not_reach_the_new_one(site, tmp_path):
    """The ledger is lost, and what a kill left beside it is a journal that SQLite would play back."""
    journal = site.path.with_name("ledger.sqlite-journal")
    connection = sqlite3.connect(site.path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO entries VALUES (?, 1, 1, 1, 1, 1, ?)", [(n, "x" * 900) for n in range(9, 99)])
    content = journal.read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    site.path.unlink()
    journal.write_bytes(content)
    site.recover()
    assert not journal.exists()
    assert [one.read_bytes() for one in site.folder.glob("*.set-aside-*-journal")] == [content]
    site.open().close()


def test_the_clock_may_be_put_right_by_a_recovery(site):
    site.clock.move(days=36500)
    with site.open() as ledger:
        ledger.commit(PLAN, 2, ORDER)
    site.clock.move(days=-36500)
    with site.open() as ledger:
        assert ledger.latest_time.year > 2100
        ledger.recover("the clock ran a century ahead")
    with site.open() as ledger:
        assert ledger.latest_time == site.clock.now


@pytest.mark.parametrize("reason", ["", "x" * 2001])
def test_a_recovery_has_a_reason(site, reason):
    before = site.path.read_bytes()
    with pytest.raises(ConfigError, match="the recovery has 1 problem"):
        site.recover(reason)
    assert site.path.read_bytes() == before


@pytest.mark.parametrize("step", ["_kept_beside", "create_file", "write_anchor"])
def test_a_recovery_that_was_cut_short_is_done_again(site, monkeypatch, step):
    site.anchor.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(client.ledger.recovery, step, full)
        with pytest.raises(OSError, match="No space"):
            site.recover()
    with pytest.raises(IntegrityError):
        site.open()
    site.recover()
    assert site.read().rows[-1].meaning.plans == (PLAN,)
    with site.open() as ledger:
        assert ledger.balance("records", "patient").left == 0


def test_a_full_disk_changes_nothing_or_is_no_way_round(site, monkeypatch):
    before = site.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("client.ledger.recovery.Path.hardlink_to", full)
        with pytest.raises(TryAgainError, match="No space left on device"):
            site.recover()
    assert site.path.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(common.files.tempfile, "mkstemp", full)
        with pytest.raises(TryAgainError, match="No space left on device"):
            site.recover()
    with pytest.raises(RollbackError):
        site.open()
    site.recover()
    site.open().close()
