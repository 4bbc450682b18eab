"""Attacks on a ledger: each is detected, or harmless and said to be."""

import pytest

import client.ledger.check
import client.ledger.file
from client.ledger.anchor import Anchor, write_anchor
from client.ledger.file import create_file
from client.ledger.rows import Opened, new_row
from common.canonical import digest
from common.errors import BudgetError, IntegrityError, RollbackError
from common.identity import new_identity
from tests.client.ledger_site import ORDER, OTHER_HOST, OTHER_ORDER, OTHER_PLAN, PLAN, Site, reserve


@pytest.fixture
def site(tmp_path):
    """A site that has reserved a plan and begun two rounds: five entries."""
    made = Site(tmp_path / "site").create()
    with made.open() as ledger:
        reserve(ledger)
        ledger.commit(PLAN, 1, ORDER)
        ledger.commit(PLAN, 2, OTHER_ORDER)
    return made


def refused(site, kind, rule):
    """Both ways of opening say no, twice, and leave the files as they are."""
    for _ in range(2):
        for open_it in (site.open, site.read):
            with pytest.raises(kind, match=rule) as refusal:
                open_it()
            assert type(refusal.value) is kind
            assert "cloister-site recover" in refusal.value.hint


def test_an_untouched_ledger_opens(site):
    with site.open() as ledger:
        assert ledger.committed(PLAN).last_round == 2
    assert len(site.read().rows) == 5


# --- missing and damaged files ---------------------------------------------------------------------------------------


def test_a_deleted_ledger(site):
    site.path.unlink()
    refused(site, IntegrityError, "ledger .* is missing")


def test_a_deleted_anchor(site):
    site.anchor.unlink()
    refused(site, IntegrityError, "has lost its anchor")


def test_both_deleted(site):
    site.path.unlink()
    site.anchor.unlink()
    refused(site, IntegrityError, "ledger .* is missing")


@pytest.mark.parametrize("kept", [0, 1, 512, 4096, -1024])
def test_a_truncated_file(site, kept):
    content = site.path.read_bytes()
    site.path.write_bytes(content[:kept])
    refused(site, IntegrityError, "is damaged|holds other tables|holds something else than text")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b'{"anchor":{},"signature":""}'])
def test_a_damaged_anchor(site, content):
    site.anchor.write_bytes(content)
    refused(site, IntegrityError, "has a damaged anchor")


def test_an_empty_ledger(site):
    site.sql("DELETE FROM entries")
    refused(site, RollbackError, "ends at entry 0, but entry 5 was written")


# --- edits -----------------------------------------------------------------------------------------------------------


def test_an_edited_entry(site):
    site.sql("UPDATE entries SET content = replace(content, '\"rounds\":20', '\"rounds\":90') WHERE sequence = 3")
    refused(site, IntegrityError, "was edited: entry 3")


@pytest.mark.parametrize("column", ["time", "kind", "content", "hash", "signature"])
def test_an_edited_column(site, column):
    site.sql(f"UPDATE entries SET {column} = {column} || ' ' WHERE sequence = 4")  # noqa: S608
    refused(site, IntegrityError, "entry 4")


def test_an_entry_removed_in_the_middle(site):
    site.sql("DELETE FROM entries WHERE sequence = 3")
    refused(site, IntegrityError, "is not whole: entry 3 is missing")


def test_an_entry_removed_and_the_rest_renumbered(site):
    site.sql("DELETE FROM entries WHERE sequence = 3")
    site.sql("UPDATE entries SET sequence = sequence - 1 WHERE sequence > 3")
    refused(site, IntegrityError, "is not whole: entry 3 is missing or does not follow")


def rehashed(site):
    """Every hash computed anew, as somebody without the key can do."""
    previous = "0" * 64
    for number, time, kind, content, *_ in site.sql("SELECT * FROM entries ORDER BY sequence"):
        own = digest(["cloister ledger", 1, number, time, kind, content, previous])
        site.sql("UPDATE entries SET previous = ?, hash = ? WHERE sequence = ?", previous, own, number)
        previous = own


def test_a_chain_with_every_hash_computed_anew(site):
    site.sql("UPDATE entries SET content = replace(content, '\"cost\":1', '\"cost\":0') WHERE sequence = 3")
    rehashed(site)
    refused(site, IntegrityError, "was not written by this site: entry 3 lacks its signature")


def test_a_chain_signed_by_another_key(site, tmp_path):
    other = Site(tmp_path / "other").create()
    with other.open() as ledger:
        reserve(ledger)
    site.put_back(other, anchor=False)
    refused(site, IntegrityError, "was not written by this site: entry 1")
    site.put_back(other)
    refused(site, IntegrityError, "that this site did not sign")


def test_a_chain_that_this_key_signed_for_another_site(site):
    """Only who holds the key can make one; a site's first entry names the key all the same."""
    first = Opened(ledger="0" * 64, site="f" * 64, host=site.host)
    rows = [new_row(None, first, site.clock(), site.identity)]
    create_file(site.path, rows)
    write_anchor(site.anchor, Anchor.at(rows[0], site.host), site.identity)
    refused(site, IntegrityError, "belongs to another site")


def test_entries_without_a_first_one(site):
    create_file(site.path, [])
    write_anchor(site.anchor, Anchor(host=site.host), site.identity)
    refused(site, IntegrityError, "has no first entry")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (a)",
        "CREATE TRIGGER no AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE sequence = NEW.sequence; END",
        "ALTER TABLE entries ADD COLUMN more TEXT",
        "DROP TABLE entries",
    ],
)
def test_other_tables_and_triggers(site, statement):
    site.sql(statement)
    refused(site, IntegrityError, "holds other tables than a ledger's")


def test_bytes_in_the_place_of_text(site):
    site.sql("UPDATE entries SET content = x'00' WHERE sequence = 3")
    refused(site, IntegrityError, "an entry holds something else than text")


def test_an_anchor_edited_or_signed_by_another_key(site):
    content = site.anchor.read_text()
    site.anchor.write_text(content.replace('"sequence":5', '"sequence":4'))
    refused(site, IntegrityError, "that this site did not sign")
    write_anchor(site.anchor, Anchor.at(site_rows(site)[4], site.host), new_identity())
    refused(site, IntegrityError, "that this site did not sign")


def site_rows(site):
    from client.ledger.rows import Row

    return [Row(*values) for values in site.sql("SELECT * FROM entries ORDER BY sequence")]


# --- older copies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_entries_removed_at_the_end(site, gone):
    site.sql("DELETE FROM entries WHERE sequence > ?", 5 - gone)
    refused(site, RollbackError, f"ends at entry {5 - gone}, but entry 5 was written")


def test_an_older_ledger(site):
    older = site.copy("older")
    with site.open() as ledger:
        reserve(ledger, OTHER_PLAN)
    site.put_back(older, anchor=False)
    refused(site, RollbackError, "an older copy was put back")


def test_an_older_ledger_that_went_on_elsewhere(site):
    older = site.copy("older")
    with site.open() as ledger:
        ledger.commit(PLAN, 3, ORDER)
    with older.open() as ledger:
        ledger.commit(PLAN, 3, OTHER_ORDER)
    site.put_back(older, anchor=False)
    refused(site, RollbackError, "has another entry 6 than was written")


def test_an_older_anchor(site):
    older = site.copy("older")
    with site.open() as ledger:
        ledger.commit(PLAN, 3, ORDER)
        ledger.commit(PLAN, 4, ORDER)
    site.put_back(older, ledger=False)
    refused(site, RollbackError, "stands at entry 5 of 7, which no crash explains")


def test_an_anchor_one_entry_behind_is_what_a_crash_leaves_and_harmless(site):
    """What is recorded as spent is not less by it, and from then on the older ledger is too old."""
    older = site.copy("older")
    with site.open() as ledger:
        reserve(ledger, OTHER_PLAN)
    site.put_back(older, ledger=False)
    with site.open() as ledger:
        assert ledger.reservation(OTHER_PLAN) is not None
    site.put_back(older, anchor=False)
    refused(site, RollbackError, "an older copy was put back")


def test_both_put_back_together_is_not_seen_here(site):
    """A snapshot of everything: the witness is the coordinator's acknowledged sequence (client/inbox.py)."""
    older = site.copy("older")
    with site.open() as ledger:
        reserve(ledger, OTHER_PLAN)
    site.put_back(older)
    with site.open() as ledger:
        assert ledger.reservation(OTHER_PLAN) is None
        # What the person does whom the witness told of it:
        ledger.recover("the coordinator remembers more than this site")
        with pytest.raises(BudgetError):
            reserve(ledger, OTHER_PLAN)


# --- another machine -------------------------------------------------------------------------------------------------


def test_a_copy_on_a_second_machine(site):
    elsewhere = site.copy("elsewhere")
    elsewhere.host = OTHER_HOST
    refused(elsewhere, IntegrityError, "belongs to another machine")
    site.open().close()


def test_an_anchor_for_the_second_machine_does_not_help(site):
    """Made by whom? Only the key's holder can; and the first entry names the machine too."""
    elsewhere = site.copy("elsewhere")
    elsewhere.host = OTHER_HOST
    write_anchor(elsewhere.anchor, Anchor.at(site_rows(site)[4], OTHER_HOST), site.identity)
    refused(elsewhere, IntegrityError, "belongs to another machine")


# --- a reader beside a writer ----------------------------------------------------------------------------------------


def test_a_reader_may_look_while_the_node_writes(site, monkeypatch):
    """Two entries come between its look at the anchor and at the ledger, and one after that."""
    with site.open() as ledger:
        rows = client.ledger.file.LedgerFile.rows

        def meanwhile(file):
            if file is ledger._chain._file:
                return rows(file)
            ledger.commit(PLAN, 3, ORDER)
            ledger.commit(PLAN, 4, ORDER)
            found = rows(file)
            ledger.commit(PLAN, 5, ORDER)
            return found

        monkeypatch.setattr(client.ledger.file.LedgerFile, "rows", meanwhile)
        assert len(site.read().rows) == 7


def test_a_reader_refuses_what_no_writer_explains(site, monkeypatch):
    older = site.copy("older")
    with site.open() as ledger:
        for number in (3, 4, 5):
            ledger.commit(PLAN, number, ORDER)
    read, anchors = client.ledger.check.read_anchor, iter((older.anchor, older.anchor))
    monkeypatch.setattr(client.ledger.check, "read_anchor", lambda _, public: read(next(anchors), public))
    with pytest.raises(RollbackError, match="stands at entry 5 of 8"):
        site.read()
