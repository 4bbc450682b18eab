"""init, renew and verify as text."""

import json
import re

import pytest

from common.audit import verify_audit
from common.enrolment import fingerprint
from common.identity import public_name
from common.key_files import read_identity
from server.config import load_coordinator_config

FINGERPRINT = re.compile(r"\b[A-Z2-7]{4}(-[A-Z2-7]{4}){5}\b")


def test_init_shows_the_fingerprint_and_the_next_steps(cli, tmp_path):
    done = cli("init", "--name", "sepsis", "--address", "study.example.org:9443")
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "coordinator"
    mark = fingerprint(public_name(read_identity(folder / "keys" / "identity.key")))
    assert f"fingerprint  {mark}\n" in done.out
    assert "cloister-coordinator enrol JOIN-REQUEST > invitation" in done.out
    assert load_coordinator_config(folder / "coordinator.toml").address == "study.example.org:9443"


def test_init_begins_the_audit_log(cli, home):
    report = verify_audit(home.audit, home.audit_anchor, public_name(read_identity(home.identity_key)))
    assert [entry.event.command for entry in report.entries] == ["init"]


def test_init_never_overwrites(cli, home):
    before = home.identity_key.read_bytes()
    done = cli("init", "--name", "other", "--address", "127.0.0.1:9443")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error: the folder ")
    assert home.identity_key.read_bytes() == before


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("name", "address", "told"),
    [
        ("sepsis", "127.0.0.1", "--address: the address '127.0.0.1' does not end with a port from 1 to 65535"),
        ("we st", "127.0.0.1:9443", "--name must be made of letters, digits, dots, - and _, with a letter"),
        ("sepsis", "127.0.0.1:9092", "`listen.superlink_port` must not be the gateway's port"),
    ],
)
def test_init_refuses_what_was_mistyped_as_such_and_leaves_nothing(cli, tmp_path, name, address, told, more):
    done = cli("init", "--name", name, "--address", address, *more)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {told}")
    assert "configuration.md" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_init_makes_nothing(cli, tmp_path):
    done = cli("init", "--name", "sepsis", "--address", "127.0.0.1:9443", "--dry-run")
    assert (done.code, done.out) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_init_as_json(cli, tmp_path):
    told = json.loads(cli("init", "--name", "sepsis", "--address", "127.0.0.1:9443", "--json").out)
    assert told["home"] == str(tmp_path / "coordinator")
    assert FINGERPRINT.fullmatch(told["fingerprint"])


def test_renew_issues_other_certificates_under_the_same_authority(cli, home):
    names = (home.server_certificate, home.superlink_certificate, home.ca_certificate)
    before = [path.read_bytes() for path in names]
    done = cli("renew")
    assert done.code == 0, done.err
    assert "pass  gateway certificate" in done.out
    after = [path.read_bytes() for path in names]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]


def test_a_dry_run_of_renew_changes_nothing(cli, home):
    before = home.server_certificate.read_bytes()
    assert cli("renew", "--dry-run").code == 0
    assert home.server_certificate.read_bytes() == before


def test_verify_counts_what_is_in_the_log(cli, home):
    cli("renew")
    done = cli("verify")
    assert done.code == 0
    assert "the audit log holds: 2 lines" in done.out
    assert json.loads(cli("verify", "--json").out)["events"] == {"admin-command": 2}


def test_verify_tells_the_last_lines_number_and_hash_to_be_noted_elsewhere(cli, home):
    one = cli("verify")
    assert "the audit log holds: 1 line, from " in one.out
    cli("renew")
    last = json.loads(home.audit.read_text().splitlines()[-1])
    told = json.loads(cli("verify", "--json").out)
    assert told["head"] == {"number": 2, "hash": last["hash"]}
    assert f"\nthe last is number 2, hash {last['hash'][:24]}…; note both elsewhere" in cli("verify").out


def test_verify_finds_an_edited_line(cli, home):
    home.audit.write_bytes(home.audit.read_bytes().replace(b'"init"', b'"knit"'))
    done = cli("verify")
    assert (done.code, done.out) == (13, "")
    assert done.err.startswith("error: ")


def test_without_a_home_every_command_says_how_to_make_one(cli):
    for command in ("renew", "verify", "sites", "status", "start", "report"):
        done = cli(command)
        assert done.code == 3, command
        assert "cloister-coordinator init" in done.err
