import stat
from pathlib import Path

import pytest

from client.config import load_site_config
from client.enrolment import read_pinned
from client.verification import verify_site
from common.audit import verify_audit
from common.audit_events import AdminCommand, Joined
from common.enrolment import fingerprint, read_join_request
from common.identity import public_name
from common.key_files import read_identity
from tests.site_commands import FEDERATION, Play


def events(play: Play, kind: type) -> list:
    public = public_name(read_identity(play.site.identity_key))
    entries = verify_audit(play.site.audit, play.site.audit_anchor, public).entries
    return [entry.event for entry in entries if isinstance(entry.event, kind)]


# --- init ---


def test_init_makes_a_home_whose_books_hold_and_whose_keys_are_closed(play: Play) -> None:
    ended = play.init("--data", "rows", "--train", "a.csv", "--train", "b.csv")
    assert (ended.code, ended.out) == (0, "")
    assert "cloister-site request" in ended.err
    assert all(one.check.holds for one in verify_site(play.site))
    assert {stat.S_IMODE(path.stat().st_mode) for path in play.site.keys.iterdir()} == {0o600}
    config = load_site_config(play.site.config)
    assert (config.name, config.data.train) == ("north", ("a.csv", "b.csv"))
    assert [event.command for event in events(play, AdminCommand)] == ["init"]


def test_init_never_touches_what_is_there(play: Play) -> None:
    play.init()
    before = play.site.identity_key.read_bytes()
    ended = play.init()
    assert ended.code == 3
    assert "never made over another" in ended.err
    assert f"edit {play.site.config}" in " ".join(ended.err.split())
    assert play.site.identity_key.read_bytes() == before


def test_init_warns_of_records_that_are_not_there_yet(play: Play) -> None:
    rows = play.folder / "rows"
    ended = play.init("--data", str(rows), "--train", "east.csv", "--dry-run")
    assert ended.code == 0
    assert f"warn  the folder {rows} is not there: make it, or edit `data.folder`" in ended.err
    rows.mkdir()
    (rows / "north.csv").touch()
    ended = play.init("--data", str(rows), "--train", "east.csv", "--train", "north.csv")
    assert ended.code == 0
    warnings = [line for line in ended.err.splitlines() if line.startswith("warn")]
    assert len(warnings) == 1
    assert f"the file {rows / 'east.csv'} is not there" in warnings[0]
    assert f"`data.train` in {play.site.config}" in warnings[0]


def test_init_says_nothing_of_records_that_nobody_named(play: Play) -> None:
    assert "warn" not in play.init().err


def test_a_dry_run_of_init_prints_the_settings_and_makes_nothing(play: Play) -> None:
    ended = play.init("--dry-run")
    assert ended.code == 0
    assert 'name = "north"' in ended.out
    assert not play.site.path.exists()


@pytest.mark.parametrize("name", ["", "coordinator", "a b", "../x"])
def test_init_refuses_a_name_that_no_roster_takes(play: Play, name: str) -> None:
    ended = play("init", "--name", name)
    assert ended.code == 2
    assert ended.err.startswith("error: --name must ")
    assert ended.err.endswith("hint: give another value for --name\n")
    assert not play.site.path.exists()


def test_a_full_disk_leaves_no_half_of_a_home(play: Play, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("client.books.begin_books", full)
    ended = play.init()
    assert ended.code == 3
    assert "No space left on device" in ended.err
    assert [path.name for path in play.folder.iterdir()] == ["coordinator"]


# --- request ---


def test_request_prints_the_file_and_tells_the_fingerprint_apart(play: Play) -> None:
    play.init()
    ended = play("request")
    request = read_join_request(ended.out)
    assert request.site == "north"
    assert fingerprint(request.identity) in ended.err
    assert fingerprint(request.identity) not in ended.out
    assert play("request").out == ended.out


# --- accept ---


def test_accept_pins_and_begins_the_record_of_requests(play: Play) -> None:
    play.init()
    ended = play("accept", play.invite(), "--fingerprint", play.fingerprint.lower())
    assert ended.code == 0
    assert FEDERATION in ended.err
    assert read_pinned(play.site).invitation.federation_name == FEDERATION
    assert play.site.inbox.exists()
    assert len(events(play, Joined)) == 1


def test_accept_needs_a_fingerprint_where_nobody_can_be_asked(play: Play) -> None:
    play.init()
    ended = play("accept", play.invite())
    assert ended.code == 2
    assert "--fingerprint" in ended.err
    assert not play.site.coordinator.exists()


def test_a_wrong_fingerprint_is_refused_and_leaves_nothing(play: Play) -> None:
    play.init()
    ended = play("accept", play.invite(), "--fingerprint", "AAAA-BBBB-CCCC-DDDD-EEEE-FFFF")
    assert ended.code == 4
    assert not play.site.coordinator.exists()
    assert not play.site.inbox.exists()
    assert events(play, Joined) == []


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 4)])
def test_on_a_terminal_a_person_compares(play: Play, monkeypatch, answer: bool, code: int) -> None:
    asked = []
    monkeypatch.setattr("client.commands.enrol.can_ask", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, **_: asked.append(question) or answer)
    play.init()
    ended = play("accept", play.invite())
    assert ended.code == code
    assert play.fingerprint in ended.err
    assert len(asked) == 1
    assert play.site.coordinator.exists() == answer


def test_a_dry_run_shows_and_pins_nothing(play: Play) -> None:
    play.init()
    ended = play("accept", play.invite(), "--dry-run")
    assert ended.code == 0
    assert play.fingerprint in ended.err
    assert not play.site.coordinator.exists()


def test_accepting_again_changes_nothing(joined: Play) -> None:
    before = joined.site.coordinator.read_bytes()
    ended = joined("accept", joined.folder / "invitation", "--fingerprint", joined.fingerprint)
    assert (ended.code, "pinned already" in ended.err) == (0, True)
    assert joined.site.coordinator.read_bytes() == before
    assert len(events(joined, Joined)) == 1


def test_a_kill_between_pinning_and_the_record_is_made_good(play: Play, monkeypatch) -> None:
    play.init()
    invitation = play.invite()
    with monkeypatch.context() as patched:
        patched.setattr("client.commands.enrol._begin_conversation", lambda *_: 1 // 0)
        assert play("accept", invitation, "--fingerprint", play.fingerprint).code == 1
    assert play.site.coordinator.exists()
    assert not play.site.inbox.exists()
    assert play("accept", invitation, "--fingerprint", play.fingerprint).code == 0
    assert play.site.inbox.exists()


def test_a_lost_record_of_requests_is_not_begun_anew(joined: Play) -> None:
    joined.site.inbox.unlink()
    ended = joined("accept", joined.folder / "invitation", "--fingerprint", joined.fingerprint)
    assert ended.code == 13
    assert not joined.site.inbox.exists()


@pytest.mark.parametrize("fault", ["", "-----BEGIN CLOISTER INVITATION-----\n", "ünïcode", "A" * 70_000])
def test_a_malformed_invitation_is_one_sentence(play: Play, fault: str) -> None:
    play.init()
    play("request")
    path = play.folder / "invitation"
    path.write_text(fault)
    ended = play("accept", path, "--fingerprint", play.fingerprint)
    assert ended.code == 13
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err


def test_a_request_is_no_invitation(play: Play) -> None:
    play.init()
    path = play.folder / "north.request"
    path.write_text(play("request").out)
    ended = play("accept", path, "--fingerprint", play.fingerprint)
    assert ended.code == 3
    assert "this is a join request, and an invitation is wanted" in ended.err


def test_a_plan_is_no_invitation(joined: Play) -> None:
    _, path = joined.sign()
    ended = joined("accept", path, "--fingerprint", joined.fingerprint)
    assert ended.code == 3
    assert "this is a signed plan, and an invitation is wanted" in ended.err


def test_an_invitation_that_is_not_there_is_exit_3(play: Play) -> None:
    play.init()
    play("request")
    assert play("accept", Path("nowhere"), "--fingerprint", "x").code == 3
