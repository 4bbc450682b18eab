"""enrol, withdraw and sites as text."""

import json
import os

import pytest

from common.audit import kind_of, read_audit
from common.enrolment import fingerprint, read_invitation, write_join_request
from common.identity import public_name
from common.key_files import read_identity
from server.enrolment import enrolled
from server.service_status import ServiceStatus, write_status
from tests.enrolment_play import make_join_request
from tests.held_lock import held


@pytest.fixture
def request_file(tmp_path):
    request = make_join_request("north")
    path = tmp_path / "join-request"
    path.write_text(write_join_request(request))
    return path, fingerprint(request.identity)


def kinds(home):
    reading = read_audit(home.audit, home.audit_anchor, public_name(read_identity(home.identity_key)))
    return [kind_of(entry.event) for entry in reading.entries]


def test_enrol_gives_the_invitation_alone_on_stdout_and_both_fingerprints_on_stderr(cli, home, request_file):
    path, theirs = request_file
    done = cli("enrol", path, "--fingerprint", theirs)
    assert done.code == 0, done.err
    ours = fingerprint(public_name(read_identity(home.identity_key)))
    assert read_invitation(done.out).site == "north"
    assert theirs in done.err
    assert ours in done.err
    assert kinds(home) == ["admin-command", "enrolled"]


def test_a_second_invitation_is_no_second_enrolment(cli, home, request_file):
    path, theirs = request_file
    cli("enrol", path, "--fingerprint", theirs)
    done = cli("enrol", path, "--fingerprint", theirs)
    assert "invited anew" in done.err
    assert kinds(home).count("enrolled") == 1


def test_another_fingerprint_enrols_nobody(cli, home, request_file):
    path, theirs = request_file
    done = cli("enrol", path, "--fingerprint", theirs[::-1])
    assert (done.code, done.out) == (4, "")
    assert enrolled(home) == ()


@pytest.mark.parametrize("typed", ["", "ABCD"])
def test_a_mistyped_fingerprint_is_no_attack(cli, home, request_file, typed):
    done = cli("enrol", request_file[0], "--fingerprint", typed)
    assert (done.code, done.out) == (2, "")
    assert f"six groups of four letters and digits; this one has {1 if typed else 0}" in done.err
    assert enrolled(home) == ()


def test_nobody_there_to_compare_enrols_nobody(cli, home, request_file):
    done = cli("enrol", request_file[0])
    assert (done.code, done.out) == (2, "")
    assert "--fingerprint" in done.err
    assert enrolled(home) == ()


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 2)])
def test_on_a_terminal_the_fingerprint_is_asked_about(cli, home, request_file, monkeypatch, answer, code):
    monkeypatch.setattr("server.commands.sites.can_ask", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, err: answer)
    assert cli("enrol", request_file[0]).code == code
    assert len(enrolled(home)) == int(answer)


def test_a_dry_run_enrols_nobody(cli, home, request_file):
    done = cli("enrol", request_file[0], "--dry-run")
    assert (done.code, done.out) == (0, "")
    assert "would enrol north" in done.err
    assert enrolled(home) == ()


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CLOISTER JOIN REQUEST-----\nAAAA\n"])
def test_a_file_that_is_no_request_is_one_sentence(cli, home, tmp_path, text):
    (tmp_path / "bad").write_text(text)
    done = cli("enrol", tmp_path / "bad", "--fingerprint", "A")
    assert (done.code, done.out) == (13, "")
    assert done.err.count("error:") == 1
    assert "Traceback" not in done.err


def test_sites_lists_names_and_fingerprints(cli, home, sites):
    done = cli("sites")
    assert done.code == 0
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [[name, "?"] for name in sites]


def test_while_the_service_runs_sites_says_who_is_connected(cli, home, sites):
    write_status(home, ServiceStatus(os.getpid(), "", True, {"north": True, "south": False}))
    with held(home.lock):
        told = json.loads(cli("sites", "--json").out)
    assert {site["site"]: site["online"] for site in told} == {"north": True, "south": False, "west": False}
    assert {site["online"] for site in json.loads(cli("sites", "--json").out)} == {None}


def test_withdraw_takes_a_site_out(cli, home, sites):
    done = cli("withdraw", "south")
    assert (done.code, done.out) == (0, "")
    assert [site.name for site in enrolled(home)] == ["north", "west"]
    assert kinds(home)[-1] == "withdrawn"


def test_a_dry_run_withdraws_nobody(cli, home, sites):
    assert cli("withdraw", "south", "--dry-run").code == 0
    assert len(enrolled(home)) == 3


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_an_unknown_site_is_a_config_error(cli, home, sites, option):
    done = cli("withdraw", "../north", *option)
    assert done.code == 3
    assert "no site '../north' is enrolled" in done.err
