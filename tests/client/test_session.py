import json
import stat

import pytest

import client.session
from client.sealed_file import read_sealed, write_sealed
from client.session import SessionBook
from common.errors import IntegrityError
from common.secagg.messages import SessionInvite
from tests.secagg_play import make_study

PLAN, SESSION = "ab" * 32, "5e" * 32
INVITE = SessionInvite(PLAN, SESSION, first_round=3, rounds=4)


def book(folder) -> SessionBook:
    return SessionBook(folder, PLAN, "a00")


@pytest.fixture
def begun(tmp_path):
    opened = book(tmp_path)
    opened.begin(INVITE)
    return opened


@pytest.fixture
def roster(tmp_path):
    (tmp_path / "study").mkdir()
    return make_study(tmp_path / "study").roster()


def channel(opened: SessionBook) -> bytes:
    return opened.secret.channel_key().private_bytes_raw()


def test_a_new_book_holds_nothing(tmp_path):
    opened = book(tmp_path)
    assert (opened.session, opened.rounds, opened.roster) == ("", range(0), None)
    assert not opened.holds(INVITE)
    with pytest.raises(IntegrityError, match="no session yet"):
        _ = opened.secret
    assert list(tmp_path.iterdir()) == []


def test_a_session_is_on_disk_before_anything_follows_from_it(begun, tmp_path):
    again = book(tmp_path)
    assert (again.session, again.rounds) == (SESSION, range(3, 7))
    assert channel(again) == channel(begun)
    assert again.holds(INVITE)
    assert stat.S_IMODE((tmp_path / "session.keys").stat().st_mode) == 0o600


@pytest.mark.parametrize("other", [("cd" * 32, 3, 4), (SESSION, 2, 4), (SESSION, 3, 5)])
def test_a_session_is_held_with_its_rounds(begun, other):
    assert not begun.holds(SessionInvite(PLAN, *other))


def test_a_new_session_forgets_the_one_before(begun, tmp_path, roster):
    first = channel(begun)
    begun.agree_to(roster)
    begun.begin(SessionInvite(PLAN, "cd" * 32, 7, 1))
    assert begun.session == "cd" * 32
    assert begun.roster is None
    assert channel(begun) != first
    assert book(tmp_path).roster is None
    begun.begin(INVITE)
    assert channel(begun) != first, "the same id again is a new secret"


def test_the_roster_is_on_disk(begun, tmp_path, roster):
    begun.agree_to(roster)
    kept = book(tmp_path).roster
    assert kept is not None
    assert kept.digest == roster.digest
    assert kept.signatures.tobytes() == roster.signatures.tobytes()


def test_a_session_agrees_to_one_roster_once(begun, tmp_path, roster):
    begun.agree_to(roster)
    with pytest.raises(IntegrityError, match="one roster, once"):
        begun.agree_to(roster)
    (tmp_path / "new").mkdir()
    with pytest.raises(IntegrityError, match="one roster, once"):
        book(tmp_path / "new").agree_to(roster)


def test_what_the_disk_did_not_take_is_not_believed(begun, monkeypatch, roster):
    def full(*_):
        raise OSError(28, "no space")

    monkeypatch.setattr(client.session, "write_sealed", full)
    with pytest.raises(OSError, match="no space"):
        begun.agree_to(roster)
    assert begun.roster is None
    with pytest.raises(OSError, match="no space"):
        begun.begin(SessionInvite(PLAN, "cd" * 32, 7, 1))
    assert begun.session == SESSION


# --- files that are not this book's ---


def test_a_damaged_file_is_told_with_what_to_do(begun, tmp_path):
    path = tmp_path / "session.keys"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="is damaged") as caught:
        book(tmp_path)
    assert "delete it" in caught.value.hint


@pytest.mark.parametrize("change", [{"format_version": 2}, {"rounds": 0}, {"secret": "ab"}, {"more": 1}])
def test_a_file_of_another_version_is_refused(begun, tmp_path, change):
    content = read_sealed(tmp_path / "session.keys")
    assert content is not None
    write_sealed(tmp_path / "session.keys", json.loads(content[0]) | change)
    with pytest.raises(IntegrityError, match="not one that this version writes"):
        book(tmp_path)


@pytest.mark.parametrize(("plan", "site"), [("cd" * 32, "a00"), (PLAN, "a01")])
def test_a_file_of_another_plan_or_site_is_refused(begun, tmp_path, plan, site):
    with pytest.raises(IntegrityError, match="another plan or site"):
        SessionBook(tmp_path, plan, site)


def test_the_secret_is_in_no_error_and_in_no_repr(begun, tmp_path):
    content = read_sealed(tmp_path / "session.keys")
    assert content is not None
    with pytest.raises(IntegrityError) as caught:
        SessionBook(tmp_path, PLAN, "a01")
    hidden = content[0].decode().split('"secret":"')[1][:64]
    assert hidden not in str(caught.value) + caught.value.hint + repr(begun) + repr(begun.secret)
