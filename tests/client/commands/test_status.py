import json
from datetime import UTC, datetime

import pytest

from client.status import StatusBoard
from common.file_lock import alone
from tests.site_commands import ADDRESS, Play


def test_a_new_site_has_no_coordinator_yet(play: Play) -> None:
    play.init()
    ended = play("status")
    assert ended.code == 0
    assert "accept INVITATION" in ended.out
    assert "stopped" in ended.out


def test_it_shows_site_coordinator_and_plans(joined: Play) -> None:
    approved = joined.approved(name="first")
    waiting, path = joined.sign(name="second")
    joined("review", path)
    out = joined("status").out
    assert ADDRESS in out
    assert joined.fingerprint in out
    lines = {line.split()[1]: line for line in out.splitlines() if line.startswith("plan")}
    assert approved.digest[:12] in lines["first"]
    assert lines["first"].rstrip().endswith(" approved")
    assert "not approved" in lines["second"]
    assert waiting.digest[:12] in lines["second"]


def test_what_the_node_does_is_shown_while_it_runs_and_no_longer(joined: Play) -> None:
    signed = joined.approved()
    board = StatusBoard(joined.site.status)
    board.show("working", "loading the base model", plan=signed.digest, round_number=3)
    with alone(joined.site.lock):
        shown = joined("status").out
        assert "working" in shown
        assert "loading the base model" in shown
        assert "in round 3" in shown
        assert json.loads(joined("status", "--json").out)["doing"] == "working"
    gone = joined("status").out
    assert "ended without a word" in gone
    assert "in round 3" not in gone
    assert json.loads(joined("status", "--json").out)["doing"] == "stopped"


def test_json_is_everything_and_nothing_else(joined: Play) -> None:
    signed = joined.approved()
    ended = joined("status", "--json")
    told = json.loads(ended.out)
    assert (told["site"], told["process"], told["paused"], told["address"]) == ("north", None, False, ADDRESS)
    assert told["plans"] == [{"name": "study", "digest": signed.digest, "approved": True, "approval": "approved"}]
    assert ended.err == ""


@pytest.mark.parametrize(("since", "doing"), [("2026-11-01T09:30:00Z", "stopped"), ("2026-12-01T09:30:00Z", "failed")])
def test_a_failure_from_before_the_invitation_was_accepted_is_over(play: Play, monkeypatch, since, doing) -> None:
    """A start before `accept` fails, and says so; after it nothing is wrong any more."""
    play.init()
    monkeypatch.setattr("client.status._now", lambda: since)
    StatusBoard(play.site.status).show("failed", "this site has accepted no invitation")
    assert "failed since" in play("status").out
    monkeypatch.setattr("client.enrolment.current_moment", lambda: datetime(2026, 11, 21, 9, 30, tzinfo=UTC))
    monkeypatch.setattr("client.enrolment.check_authority_time", lambda *_: None)
    assert play("accept", play.invite(), "--fingerprint", play.fingerprint).code == 0
    assert json.loads(play("status", "--json").out)["doing"] == doing
    shown = play("status").out
    assert ("failed since" in shown) == (doing == "failed")
    assert ("before the invitation was accepted" in shown) == (doing == "stopped")


def test_what_went_wrong_is_shown_as_text(joined: Play) -> None:
    StatusBoard(joined.site.status).show("failed", "disk [red]full[/red]")
    assert "disk [red]full[/red]" in joined("status").out


def test_an_approval_is_shown_while_site_toml_is_broken(joined: Play) -> None:
    joined.approved()
    with joined.site.config.open("a") as config:
        config.write("\nnonsense = 1\n")
    assert joined("status").code == 0


def test_an_approval_that_was_edited_is_none_until_it_is_withdrawn_and_given_anew(joined: Play) -> None:
    signed = joined.approved()
    path = joined.site.approval(signed.digest)
    path.write_text(path.read_text().replace('"by":"', '"by":"x'))
    ended = joined("status")
    assert ended.code == 0
    assert "approval damaged or edited" in ended.out
    assert f"cloister-site withdraw {signed.digest[:12]}" in ended.out
    (plan,) = json.loads(joined("status", "--json").out)["plans"]
    assert (plan["approved"], plan["approval"]) == (False, "damaged")
    assert joined("withdraw", signed.digest[:12]).code == 0
    assert joined("approve", signed.digest, "--yes").code == 0
    assert "damaged" not in joined("status").out
