import errno
import multiprocessing
import os
import sqlite3
import threading

import pytest

import client.ledger.file
from client.ledger.file import LedgerFile, WriterLock, create_file
from client.ledger.rows import Row
from common.errors import IntegrityError, TryAgainError


def row(sequence: int) -> Row:
    return Row(sequence, "now", "kind", "{}", "before", "own", "signature")


@pytest.fixture
def path(tmp_path):
    create_file(tmp_path / "ledger.sqlite", [row(1)])
    return tmp_path / "ledger.sqlite"


def test_a_new_file_holds_its_entries_and_is_private(path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert LedgerFile(path).rows() == (row(1),)
    assert [one.name for one in path.parent.iterdir()] == ["ledger.sqlite"]


def test_entries_come_back_as_they_went_in(path):
    file = LedgerFile(path)
    file.append(row(2))
    file.close()
    assert LedgerFile(path).rows() == (row(1), row(2))
    assert [one.name for one in path.parent.iterdir()] == ["ledger.sqlite"]


def test_writes_are_fully_synchronous_with_the_folder(path):
    connection = LedgerFile(path)._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_taken_number_is_refused_and_nothing_is_written(path):
    first, second = LedgerFile(path), LedgerFile(path)
    first.append(row(2))
    with pytest.raises(IntegrityError, match="was changed by somebody else"):
        second.append(row(2))
    second.append(row(3))
    assert first.rows() == (row(1), row(2), row(3))


def test_a_fault_in_the_middle_leaves_nothing(path):
    file = LedgerFile(path)
    with pytest.raises(IntegrityError):
        file.append(Row(2, "now", None, "{}", "before", "own", "signature"))
    assert not file._connection.in_transaction
    assert LedgerFile(path).rows() == (row(1),)


def interrupted():
    yield row(2)
    raise KeyboardInterrupt


def test_a_signal_in_the_middle_leaves_nothing(path):
    file = LedgerFile(path)
    with pytest.raises(KeyboardInterrupt):
        client.ledger.file._insert(file._connection, interrupted())
    assert file.rows() == LedgerFile(path).rows() == (row(1),)
    file.append(row(2))


def test_what_is_not_on_disk_is_never_shown(path):
    """A second signal may end the rollback, too."""
    file = LedgerFile(path)
    file._connection.execute("BEGIN IMMEDIATE")
    file._connection.execute("INSERT INTO entries VALUES (2, 'a', 'a', 'a', 'a', 'a', 'a')")
    assert file.rows() == (row(1),)
    file.append(row(2))


def test_a_busy_file_is_a_passing_fault(path, monkeypatch):
    monkeypatch.setattr(client.ledger.file, "_BUSY_SECONDS", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TryAgainError, match="cannot be used now: database is locked"):
        LedgerFile(path).append(row(2))
    other.execute("ROLLBACK")
    LedgerFile(path).append(row(2))
    other.close()


def test_a_hot_journal_of_a_kill_is_played_back(path, tmp_path):
    """A copy of file and journal in the middle of a transaction is what a kill leaves."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    for number in range(2, 300):
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", (number, *["x" * 200] * 6))
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("ledger.sqlite", "ledger.sqlite-journal"):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    connection.execute("ROLLBACK")
    connection.close()
    assert (killed / "ledger.sqlite").stat().st_size > path.stat().st_size
    assert LedgerFile(killed / "ledger.sqlite").rows() == (row(1),)


def test_another_thread_is_a_programming_fault(path):
    file, found = LedgerFile(path), []

    def look() -> None:
        try:
            file.rows()
        except sqlite3.ProgrammingError as error:
            found.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert len(found) == 1


# --- creating --------------------------------------------------------------------------------------------------------


def test_creating_replaces_in_one_step_and_clears_what_a_kill_left(path):
    for name in ("ledger.sqlite.begun", "ledger.sqlite.begun-journal"):
        (path.parent / name).write_bytes(b"left over")
    create_file(path, [row(1), row(2)])
    assert LedgerFile(path).rows() == (row(1), row(2))
    assert [one.name for one in path.parent.iterdir()] == ["ledger.sqlite"]


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["os.open", "Path.replace", "sync_folder"])
def test_a_full_disk_leaves_the_old_file_or_the_new(path, monkeypatch, where):
    with monkeypatch.context() as patch:
        patch.setattr(f"client.ledger.file.{where}", full)
        with pytest.raises(TryAgainError, match="cannot be used now: No space left on device"):
            create_file(path, [row(1), row(2)])
    assert len(LedgerFile(path).rows()) == (2 if where == "sync_folder" else 1)


def test_a_folder_is_no_ledger(tmp_path):
    with pytest.raises(IntegrityError, match="is missing"):
        LedgerFile(tmp_path)


def test_a_missing_folder_is_a_passing_fault(tmp_path):
    with pytest.raises(TryAgainError, match="No such file"):
        create_file(tmp_path / "none" / "ledger.sqlite", [])
    with pytest.raises(TryAgainError, match="No such file"):
        WriterLock(tmp_path / "none" / "ledger.sqlite")


# --- the lock --------------------------------------------------------------------------------------------------------


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with WriterLock(path), pytest.raises(TryAgainError, match="another process is writing the ledger"):
        WriterLock(path)
    WriterLock(tmp_path / "ledger.sqlite").release()
    assert (tmp_path / "ledger.sqlite.lock").stat().st_mode & 0o777 == 0o600


def hold(path, held, end):
    lock = WriterLock(path)
    held.set()
    end.wait(20)
    lock.release()


def test_another_process_holds_it_until_it_ends_however_it_ends(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, end = context.Event(), context.Event()
    child = context.Process(target=hold, args=(tmp_path / "ledger.sqlite", held, end))
    child.start()
    assert held.wait(20)
    with pytest.raises(TryAgainError):
        WriterLock(tmp_path / "ledger.sqlite")
    child.kill()
    child.join()
    WriterLock(tmp_path / "ledger.sqlite").release()
