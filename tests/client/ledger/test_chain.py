"""Crashes and full disks: whatever moment the process ends at, what is recorded covers what was spent."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import common.files
from client.ledger.file import LedgerFile
from client.ledger.rows import Row
from common.errors import BudgetError, IntegrityError, RollbackError, TryAgainError
from common.identity import new_identity
from tests.client.ledger_site import BUDGET, ORDER, OTHER_PLAN, PLAN, ROUNDS, THIRD_PLAN, Site, reserve


class KilledError(BaseException):
    """What a kill looks like from inside: nothing catches it."""


@dataclass
class Crash:
    """Ends the process at the n-th of the moments around durable writes, counted from now."""

    at: int = 0
    moments: list[str] = field(default_factory=list)

    def reached(self, moment: str) -> None:
        self.moments.append(moment)
        if len(self.moments) == self.at:
            raise KilledError(moment)


@pytest.fixture
def crash(monkeypatch):
    """Moments before and after: the entry's transaction, the anchor's rename, and the sync of its folder."""
    crash = Crash()
    append, sync, beside = LedgerFile.append, common.files.sync_folder, common.files._written_beside

    def crashing_append(self: LedgerFile, row: Row) -> None:
        crash.reached("before the entry")
        append(self, row)
        crash.reached("after the entry")

    def crashing_beside(path, content, mode):
        crash.reached("before the anchor is written")
        return beside(path, content, mode)

    def crashing_sync(folder):
        crash.reached("after the anchor is renamed")
        sync(folder)
        crash.reached("after the anchor")

    monkeypatch.setattr(LedgerFile, "append", crashing_append)
    monkeypatch.setattr(common.files, "_written_beside", crashing_beside)
    monkeypatch.setattr(common.files, "sync_folder", crashing_sync)
    return crash


MOMENTS = ["before the entry", "after the entry", "before the anchor is written", "after the anchor is renamed"]
MOMENTS.append("after the anchor")


# --- every moment ----------------------------------------------------------------------------------------------------


def test_an_entry_has_these_moments(tmp_path, crash):
    site = Site(tmp_path / "site").create()
    with site.open() as ledger:
        crash.moments.clear()
        reserve(ledger)
        assert crash.moments == MOMENTS


@pytest.mark.parametrize("at", range(1, len(MOMENTS) + 1), ids=MOMENTS)
@pytest.mark.parametrize("work", ["reserve", "commit", "recover", "raise"])
def test_a_kill_at_any_moment_loses_nothing_that_was_reported(tmp_path, crash, work, at):
    site = Site(tmp_path / "site").create()
    ledger = site.open()
    reserve(ledger)
    ledger.commit(PLAN, 1, ORDER)
    works = {
        "reserve": lambda: reserve(ledger, OTHER_PLAN),
        "commit": lambda: ledger.commit(PLAN, 2, ORDER),
        "recover": lambda: ledger.recover("for the test"),
        "raise": lambda: ledger.allow([replace(BUDGET, epsilon=9.0)]),
    }
    crash.at = len(crash.moments) + at
    with pytest.raises(KilledError):
        works[work]()
    crash.at = 0
    ledger.close()
    with site.open() as again:
        written = at > 1
        rows = again.entries()
        # `open` itself sets the budget back to what it was where the raise was written.
        assert len(rows) == 4 + written + (written and work == "raise")
        assert (again.reservation(PLAN) is None) == (written and work == "recover")
        assert (again.committed(PLAN).last_round == 2) == (written and work == "commit")
    assert len(site.read().rows) == len(rows)


@pytest.mark.parametrize("at", range(1, len(MOMENTS) + 1), ids=MOMENTS)
def test_after_a_kill_the_older_ledger_is_refused_or_nothing_was_released(tmp_path, crash, at):
    site = Site(tmp_path / "site").create()
    ledger = site.open()
    older = site.copy("older")
    crash.at = len(crash.moments) + at
    with pytest.raises(KilledError):
        reserve(ledger)
    crash.at = 0
    ledger.close()
    site.put_back(older, anchor=False)
    if at <= 3:  # The anchor was still the old one: `reserve` had not returned, so no record was touched.
        with site.open() as again:
            assert again.reservation(PLAN) is None
    else:
        with pytest.raises(RollbackError):
            site.open()


def test_once_the_anchor_has_caught_up_the_older_ledger_is_refused(tmp_path, crash):
    site = Site(tmp_path / "site").create()
    ledger = site.open()
    older = site.copy("older")
    crash.at = len(crash.moments) + 2
    with pytest.raises(KilledError):
        reserve(ledger)
    crash.at = 0
    ledger.close()
    site.open().close()
    site.put_back(older, anchor=False)
    with pytest.raises(RollbackError):
        site.open()


# --- any course of events --------------------------------------------------------------------------------------------

PLANS = (PLAN, OTHER_PLAN, THIRD_PLAN)
STEPS = st.tuples(st.sampled_from(["reserve", "round", "open", "put back"]), st.sampled_from(PLANS), st.integers(0, 6))


@dataclass
class Course:
    """A node that touches records only after `commit` returned; it is killed, and its older ledger put back."""

    site: Site
    crash: Crash
    touched: list[tuple[str, int, str]] = field(default_factory=list)
    copies: list[Site] = field(default_factory=list)
    copied: int = 0

    def __post_init__(self) -> None:
        self.ledger = self.site.create().open()

    def step(self, name: str, plan: str, killed_at: int) -> None:
        self.crash.at = len(self.crash.moments) + killed_at if killed_at else 0
        try:
            self.work(name, plan)
        except BudgetError:
            pass
        except KilledError:
            self.reopen()
        self.crash.at = 0
        if name == "open":
            self.reopen()
        elif name == "put back":
            self.put_back()

    def work(self, name: str, plan: str) -> None:
        if name == "reserve":
            reserve(self.ledger, plan)
        elif name == "round":
            round_number = self.ledger.committed(plan).last_round + 1
            order = f"{len(self.crash.moments):064x}"
            self.ledger.commit(plan, round_number, order)
            self.touched.append((plan, round_number, order))

    def reopen(self) -> None:
        self.crash.at = 0
        self.ledger.close()
        self.ledger = self.site.open()
        self.copies.append(self.copy())

    def copy(self) -> Site:
        self.copied += 1
        return self.site.copy(f"copy-{self.copied}")

    def put_back(self) -> None:
        """The older ledger is refused, or no record was touched since."""
        if not self.copies:
            return
        self.ledger.close()
        good = self.copy()
        self.site.put_back(self.copies[-1], anchor=False)
        with contextlib.suppress(RollbackError):
            self.ledger = self.site.open()
            self.check()
        self.ledger.close()
        self.site.put_back(good)
        self.ledger = self.site.open()
        self.copies.clear()

    def check(self) -> None:
        self.ledger.close()
        self.ledger = self.site.open()
        begun = [row.meaning for row in self.ledger.entries() if row.kind == "commit"]
        recorded = {(one.plan_digest, one.round_number, one.order_digest) for one in begun}
        assert recorded >= set(self.touched)
        state = self.ledger.verify().state
        owed = sum(state.reservations[plan].cost for plan in {plan for plan, _, _ in self.touched})
        assert state.account("records", "patient").spent >= owed * (1 - 1e-12)


@given(steps=st.lists(STEPS, min_size=1, max_size=10))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recorded_is_never_less_than_spent(tmp_path_factory, crash, steps):
    crash.at = 0
    course = Course(Site(tmp_path_factory.mktemp("any") / "site"), crash)
    for step in [("reserve", PLAN, 0), *steps]:
        course.step(*step)
        course.check()
    course.ledger.close()


# --- real kills ------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.client.ledger_site import PLAN, Site, reserve
site = Site(Path(sys.argv[1]), Ed25519PrivateKey.from_private_bytes(bytes.fromhex(sys.argv[2])))
with site.open() as ledger:
    reserve(ledger, rounds=10**6)
    number = ledger.committed(PLAN).last_round
    while True:
        number += 1
        ledger.commit(PLAN, number, f"{number:064x}")
        print(number, flush=True)
"""


def test_a_real_kill_leaves_a_ledger_that_opens_and_covers_what_was_reported(tmp_path):
    site = Site(tmp_path / "site", new_identity()).create()
    arguments = [sys.executable, "-c", CHILD, str(site.folder), site.identity.private_bytes_raw().hex()]
    root = Path(__file__).parents[3]
    for wait in (0.003, 0.031):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root) as child:
            first = int(child.stdout.readline())
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
            reported = [first, *(int(line) for line in child.stdout.read().split("\n")[:-1])]
        with site.open() as ledger:
            assert reported[-1] <= ledger.committed(PLAN).last_round <= reported[-1] + 1
            ledger.verify()


# --- a disk that does not take it ------------------------------------------------------------------------------------


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def filled(ledger):
    for number in range(1, ROUNDS + 1):
        ledger.commit(PLAN, number, ORDER)


def test_a_full_disk_for_the_entry(tmp_path):
    site = Site(tmp_path / "site").create()
    with site.open() as ledger:
        reserve(ledger)
        connection = ledger._chain._file._connection
        connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(TryAgainError, match="cannot be used now: database or disk is full") as refusal:
            filled(ledger)
        assert "free space" in refusal.value.hint
        known = ledger.committed(PLAN).last_round
        assert len(ledger.verify().rows) == known + 3 == len(site.read().rows)
        connection.execute("PRAGMA max_page_count = 1000000")
        ledger.commit(PLAN, known + 1, ORDER)
        assert ledger.committed(PLAN).last_round == known + 1


def test_a_full_disk_for_the_anchor(tmp_path, monkeypatch):
    """The entry is there; nothing succeeds until the anchor has caught up."""
    site = Site(tmp_path / "site").create()
    with site.open() as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(common.files.tempfile, "mkstemp", full)
            for look in (lambda: reserve(ledger), lambda: reserve(ledger), ledger.balances, ledger.entries):
                with pytest.raises(TryAgainError, match=r"ledger\.anchor cannot be used now: No space left on device"):
                    look()
            assert len(site.read().rows) == 3
        assert ledger.reservation(PLAN) is not None
        older = site.copy("older")
        reserve(ledger)
        assert len(ledger.entries()) == 3
    assert site.anchor.read_bytes() == older.anchor.read_bytes()


def test_an_entry_that_is_reported_as_failed_but_is_there_is_found(tmp_path, monkeypatch):
    site = Site(tmp_path / "site").create()
    append = LedgerFile.append

    def lying(self, row):
        append(self, row)
        raise TryAgainError("the disk said no")

    with site.open() as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(LedgerFile, "append", lying)
            with pytest.raises(TryAgainError):
                reserve(ledger)
        assert ledger.reservation(PLAN).sequence == 3
        ledger.commit(PLAN, 1, ORDER)
    assert len(site.read().rows) == 4


# --- two writers -----------------------------------------------------------------------------------------------------


def test_a_second_writer_behind_the_locks_back_is_found(tmp_path):
    """Somebody removed the lock's file, so that two processes write: the entry's number is taken."""
    site = Site(tmp_path / "site").create()
    with site.open() as first:
        (site.folder / "ledger.sqlite.lock").unlink()
        with site.open() as second:
            reserve(second)
            with pytest.raises(IntegrityError, match="was changed by somebody else"):
                reserve(first, OTHER_PLAN)
            assert first.reservation(PLAN) is not None
            assert second.reservation(OTHER_PLAN) is None


def test_an_entry_that_cannot_follow_is_not_written(tmp_path, monkeypatch):
    site = Site(tmp_path / "site").create()
    with site.open() as ledger:
        reserve(ledger)
        monkeypatch.setattr("client.ledger.ledger.is_committed", lambda *_: False)
        with pytest.raises(IntegrityError, match="entry 4 cannot follow"):
            ledger.commit(OTHER_PLAN, 1, ORDER)
        assert len(ledger.verify().rows) == 3


def test_an_opening_that_fails_gives_the_lock_back(tmp_path):
    site = Site(tmp_path / "site").create()
    content = site.path.read_bytes()
    site.path.unlink()
    with pytest.raises(IntegrityError):
        site.open()
    site.path.write_bytes(content)
    site.open().close()


def test_closing_twice_is_harmless(tmp_path):
    ledger = Site(tmp_path / "site").create().open()
    ledger.close()
    ledger.close()
