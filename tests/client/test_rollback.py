"""Whole-folder attacks: each file of a site's home put back, deleted, cut or edited, alone and with others.

One site's home is attacked in the second round of a real study, after a kill of everybody, with a copy that was taken
in the first. Each attack is detected, with its exit code, or harmless: then the study ends, and all that
`tests.ledger_watch.Watch` asserts held.
"""

import copy
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from client.home import SiteHome
from client.ledger.ledger import open_ledger
from client.opening import open_site
from client.status import StatusBoard
from common.errors import CloisterError, ConfigError, IntegrityError, RollbackError, TryAgainError
from common.file_lock import alone
from common.messages import Refusal
from common.wire import decode
from tests.crash_play import Lives, Stage, make_stage
from tests.kills import Kill, Moment
from tests.ledger_watch import Watch, body_of

ATTACKED = "b"
FIRST = Moment(ATTACKED, "MaskedReply sent", "after")
ROUND_ONE = Kill(FIRST)
ROUND_TWO = Kill(FIRST, nth=2)
"""The first reply of that life is the repeat of round 1's."""

Attack = Callable[[SiteHome, SiteHome], None]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Stage:
    return make_stage(tmp_path_factory.mktemp("rollback"), tiny_base)


@pytest.fixture(scope="module")
def second_round(stage: Stage) -> tuple[Path, Watch]:
    """Everything on disk in round 2, with a copy of the attacked home from round 1; and what was seen until then."""
    with stage.lives([ROUND_ONE, ROUND_TWO]) as lives:
        home = lives.federation.sites[ATTACKED].path
        assert lives.live() is None
        shutil.copytree(home, home.with_name("older"))
        assert lives.live() is None
        assert lives.watch.charged(ATTACKED) == [1, 2]
    kept = stage.kept.with_name("second round")
    shutil.copytree(stage.folder, kept, symlinks=True)
    return kept, lives.watch


@pytest.fixture
def lives(stage: Stage, second_round: tuple[Path, Watch]) -> Iterator[Lives]:
    kept, watch = second_round
    with stage.lives(kept=kept) as lives:
        lives.lived = True
        vars(lives.watch).update(copy.deepcopy(vars(watch)))
        yield lives


def homes(lives: Lives) -> tuple[SiteHome, SiteHome]:
    """The attacked home in round 2, and its copy from round 1."""
    home = lives.federation.sites[ATTACKED]
    return home, SiteHome(home.path.with_name("older"))


def put_back(*names: str) -> Attack:
    """Paths within the home, from the older copy."""

    def attack(home: SiteHome, older: SiteHome) -> None:
        for name in names:
            _remove(home.path / name)
            source, target = older.path / name, home.path / name
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)

    return attack


def put_back_all_but(*names: str) -> Attack:
    def attack(home: SiteHome, older: SiteHome) -> None:
        others = [path.name for path in older.path.iterdir() if path.name not in names]
        put_back(*others)(home, older)

    return attack


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


LEDGER, LEDGER_ANCHOR = "ledger.sqlite", "keys/ledger.anchor"
AUDIT, AUDIT_ANCHOR = "audit.jsonl", "keys/audit.anchor"
INBOX = ("inbox.record", "inbox.reply")

PUT_BACK = {
    "run folder": (put_back("runs"), RollbackError),
    "ledger": (put_back(LEDGER), RollbackError),
    # A round is several entries; one alone, as a kill leaves it, is in tests/client/ledger/test_check.py.
    "ledger's anchor": (put_back(LEDGER_ANCHOR), RollbackError),
    "ledger and anchor": (put_back(LEDGER, LEDGER_ANCHOR), RollbackError),
    "ledger, anchor and run folder": (put_back(LEDGER, LEDGER_ANCHOR, "runs"), RollbackError),
    "audit log": (put_back(AUDIT), RollbackError),
    "audit log's anchor": (put_back(AUDIT_ANCHOR), RollbackError),
    "audit log and anchor": (put_back(AUDIT, AUDIT_ANCHOR), RollbackError),
    "inbox": (put_back(*INBOX), RollbackError),
    "inbox's reply": (put_back("inbox.reply"), IntegrityError),
    "everything but the inbox": (put_back_all_but(*INBOX), RollbackError),
    "everything": (put_back_all_but(), RollbackError),
    "plans, approvals and bases": (put_back("plans", "approvals", "bases"), None),
}


def expect(lives: Lives, error: type[CloisterError] | None) -> None:
    """The site stops with this error, or the study ends as it should."""
    if error is None:
        assert lives.live(wait_for_all=False) is not None
        lives.watch.check(ATTACKED)
        return
    lives.watch.comparing = False
    before = lives.watch.noised_bytes(ATTACKED)
    with pytest.raises(error):
        lives.live(wait_for_all=False)
    assert lives.watch.noised_bytes(ATTACKED) == before


@pytest.mark.parametrize("name", PUT_BACK)
def test_an_older_copy_is_noticed_or_harmless(lives: Lives, name: str) -> None:
    attack, error = PUT_BACK[name]
    attack(*homes(lives))
    expect(lives, error)


@pytest.mark.parametrize(
    ("older", "now"),
    [
        pytest.param(Kill(Moment(ATTACKED, "charges.answer", "before")), Kill(FIRST), id="charged, then answered"),
        pytest.param(Kill(FIRST), Kill(Moment(ATTACKED, "Consent sent", "after")), id="answered, then agreed"),
    ],
)
def test_a_run_folder_of_the_same_round_is_noticed(stage: Stage, older: Kill, now: Kill) -> None:
    """It would have an order answered twice under one mask, or two survivor sets signed."""
    with stage.lives([older, now]) as lives:
        home = lives.federation.sites[ATTACKED]
        assert lives.live() is None
        shutil.copytree(home.path, home.path.with_name("older"))
        assert lives.live() is None
        put_back("runs")(*homes(lives))
        expect(lives, RollbackError)


# --- one file is deleted, cut or edited ------------------------------------------------------------------------------

FILES: dict[str, tuple[type[CloisterError] | None, ...]] = {
    # deleted, cut to half, one bit changed in the middle
    "keys/identity.key": (ConfigError, IntegrityError, IntegrityError),
    "coordinator.json": (ConfigError, IntegrityError, IntegrityError),
    LEDGER: (IntegrityError, IntegrityError, IntegrityError),
    LEDGER_ANCHOR: (IntegrityError, IntegrityError, IntegrityError),
    AUDIT: (RollbackError, RollbackError, IntegrityError),
    AUDIT_ANCHOR: (IntegrityError, IntegrityError, IntegrityError),
    "inbox.record": (IntegrityError, IntegrityError, IntegrityError),
    "inbox.reply": (IntegrityError, IntegrityError, IntegrityError),
    "runs/*/charges.book": (None, None, None),
    "runs/*/charges.answer": (None, None, None),
    "runs/*/session.keys": (None, None, None),
    "plans/*.json": (None, None, None),
    "approvals/*.json": (None, IntegrityError, IntegrityError),
    "status.json": (None, None, None),
}


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("way", [delete, cut, edit])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_noticed_or_harmless(lives: Lives, name: str, way: Callable[[Path], None]) -> None:
    home, _ = homes(lives)
    (path,) = home.path.glob(name)
    way(path)
    expect(lives, FILES[name][[delete, cut, edit].index(way)])


# --- the machine -----------------------------------------------------------------------------------------------------


def test_a_copy_on_a_second_machine_is_refused(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.opening.host_identifier", lambda _: "2" * 64)
    expect(lives, IntegrityError)


def test_a_second_process_has_to_wait(lives: Lives) -> None:
    home, _ = homes(lives)
    lives.site(ATTACKED)
    with pytest.raises(TryAgainError), open_site(home, StatusBoard(home.status)):
        pass
    with alone(home.lock), pytest.raises(TryAgainError), alone(home.lock):
        pass


def test_a_second_node_that_the_locks_did_not_stop_gives_nothing_away(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network disk without locks: whoever comes second finds that others have answered in its name."""
    monkeypatch.setattr("client.ledger.file.fcntl.flock", lambda *_: None)
    home, _ = homes(lives)
    with open_site(home, StatusBoard(home.status)) as second:
        assert lives.live(wait_for_all=False) is not None
        before = home.inbox.read_bytes()
        refused = second.site.answer(lives.asked[ATTACKED])
        assert refused is not None
        assert decode(body_of(refused), Refusal).code == "rolled-back"
        assert isinstance(second.site.fatal, RollbackError)
    assert home.inbox.read_bytes() == before


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_was_moved_changes_nothing(lives: Lives, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    moved = partial(open_ledger, clock=lambda: datetime.now(UTC) + timedelta(minutes=minutes))
    monkeypatch.setattr("client.opening.open_ledger", moved)
    expect(lives, None)
    if minutes < 0:
        assert lives.site(ATTACKED).ledger.latest_time > datetime.now(UTC) - timedelta(minutes=5)
