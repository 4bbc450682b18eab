import pytest

from client.books import begin_books
from client.home import SiteHome
from client.initialise import initialise
from client.keys import site_identity
from client.site_audit import note, open_audit
from common.audit import verify_audit
from common.audit_events import Paused
from common.errors import RollbackError
from common.identity import public_name


@pytest.fixture
def home(tmp_path) -> SiteHome:
    home = SiteHome(tmp_path / "site")
    initialise(home, 'name = "north"\n', lambda draft: begin_books(draft, "mary"))
    return home


def test_an_event_is_in_the_log_when_note_returns(home: SiteHome) -> None:
    note(home, Paused(by="mary"))
    report = verify_audit(home.audit, home.audit_anchor, public_name(site_identity(home)))
    assert report.entries[-1].event == Paused(by="mary")


def test_another_process_with_the_log_open_goes_on(home: SiteHome) -> None:
    running = open_audit(home)
    note(home, Paused(by="mary"))
    running.record(Paused(by="node"))
    assert verify_audit(home.audit, home.audit_anchor, public_name(site_identity(home))).head.number == 3


def test_a_lost_log_is_not_begun_anew(home: SiteHome) -> None:
    home.audit.unlink()
    home.audit_anchor.unlink()
    with pytest.raises(RollbackError):
        note(home, Paused(by="mary"))
    assert not home.audit.exists()
