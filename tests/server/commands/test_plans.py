"""plan check, plan list and plan show as text."""

import json
import os

import pytest

from common.signed_plan import read_signed_plan
from server.enrolment import enrolled
from server.signed_plans import find_signed_plan

DRAFT = """
name = "tiny"
rounds = 3

[task]
labels = ["none", "event"]
positive_label = "event"
max_tokens = 16

[adapter]
rank = 2
top_layers = 1

[privacy]
noise_multiplier = 4.0
sampling_rate = 0.5
divisor = 8.0

[optimizer]
learning_rate = 0.5

[secure_aggregation]
tolerated_dropouts = 0
"""


@pytest.fixture
def draft(home, sites, tiny_base, tmp_path):
    (tmp_path / "base").symlink_to(tiny_base)
    text = home.config.read_text()
    home.config.write_text(text.replace("#- base = ", f'base = "{tmp_path / "base"}" # ', 1))
    path = tmp_path / "plan.toml"
    path.write_text(DRAFT)
    return path


def test_check_shows_the_cost_and_signs_nothing(cli, home, draft):
    done = cli("plan", "check", draft)
    assert done.code == 0, done.err
    for subject in ("privacy", "masks", "bytes", "time", "public data"):
        assert f" {subject} " in done.out
    assert "3: north, south, west" in done.out
    assert "0 fail" in done.out
    assert list(home.plans.iterdir()) == []


def test_sign_prints_the_digest_alone_and_writes_the_file_to_send(cli, home, draft, tmp_path):
    done = cli("plan", "check", draft, "--sign")
    assert done.code == 0, done.err
    digest = done.out.strip()
    signed = find_signed_plan(home, digest)
    sent = tmp_path / f"tiny-{digest[:8]}.plan.json"
    assert read_signed_plan(sent.read_bytes()) == signed
    assert set(signed.plan.roster) == {"north", "south", "west"}
    assert signed.plan.roster == {site.name: site.public for site in enrolled(home)}
    assert (signed.valid_until - signed.issued).days == 90
    again = cli("plan", "check", draft, "--sign", "--output", tmp_path / "again")
    assert again.out.strip() == digest
    assert (tmp_path / "again").read_bytes() == sent.read_bytes()  # the same bytes for every site
    events = json.loads(cli("verify", "--json").out)["events"]
    assert events["plan-signed"] == 1


def test_a_plan_without_noise_fails_and_is_not_signed(cli, home, draft):
    draft.write_text(DRAFT.replace("noise_multiplier = 4.0", "noise_multiplier = 0.0"))
    done = cli("plan", "check", draft, "--sign")
    assert (done.code, done.out) == (3, "")
    assert "no privacy at all" in done.err
    assert list(home.plans.iterdir()) == []


def test_a_chosen_roster_must_be_enrolled(cli, draft):
    done = cli("plan", "check", draft, "--sites", "north,east")
    assert done.code == 2
    assert "'east' is not enrolled" in done.err
    assert "north, south, west" in done.err


def test_what_does_not_fit_so_many_sites_is_said_with_the_mend(cli, draft):
    done = cli("plan", "check", draft, "--sites", "north,south")
    assert done.code == 3
    assert "does not fit 2 hospitals" in done.err


def test_a_scenario_is_told_from_a_plan(cli, draft):
    draft.write_text('base = "x"\n[plan]\nname = "tiny"\n')
    done = cli("plan", "check", draft)
    assert done.code == 3
    assert "as a scenario does" in done.err


def test_every_problem_of_a_draft_at_once(cli, draft):
    draft.write_text(DRAFT.replace("rounds = 3", "rounds = 0").replace("max_tokens", "max_token"))
    done = cli("plan", "check", draft)
    assert done.code == 3
    assert "rounds" in done.err
    assert "did you mean `max_tokens`?" in done.err


def test_a_draft_that_is_not_there_is_told_without_a_word_of_scenarios(cli, home, sites):
    done = cli("plan", "check", "nosuch.toml")
    assert done.code == 3
    assert "nosuch.toml does not exist\nhint: check its path\n" in done.err


def test_without_a_base_the_next_step_is_said(cli, home, sites, tmp_path):
    (tmp_path / "plan.toml").write_text(DRAFT)
    done = cli("plan", "check", "plan.toml")
    assert done.code == 3
    assert "set `base` in coordinator.toml" in done.err


def test_check_as_json(cli, draft):
    told = json.loads(cli("plan", "check", draft, "--json").out)
    assert told["fits"] is True
    assert told["signed"] is None
    assert {finding["level"] for finding in told["findings"]} <= {"pass", "warn"}


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_asks(cli, home, draft, monkeypatch, answer):
    monkeypatch.setattr("server.commands.plans.can_ask", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, err: answer)
    done = cli("plan", "check", draft)
    assert done.code == 0, done.err
    assert len(list(home.plans.iterdir())) == int(answer)
    assert "privacy" in done.err


def test_list_and_show(cli, signed, tmp_path):
    assert signed.digest[:16] in cli("plan", "list").out
    assert json.loads(cli("plan", "list", "--json").out)[0]["digest"] == signed.digest
    done = cli("plan", "show", signed.digest[:6])
    assert signed.digest in done.out
    assert "privacy.clip_norm = 1.0" in done.out
    document = cli("plan", "show", signed.digest, "--json").out
    assert read_signed_plan(document.strip().encode()) == signed


def test_an_unknown_or_strange_digest_is_a_usage_error(cli, signed):
    for text in ("0" * 64, "../x", "", "*"):
        assert cli("plan", "show", text).code == 2, text


def test_list_says_what_to_do_while_there_is_none(cli, home):
    done = cli("plan", "list")
    assert (done.code, done.out) == (0, "")
    assert "plan check" in done.err


def test_a_full_disk_is_one_sentence(cli, draft, monkeypatch):
    def full(*_: object, **__: object):
        raise OSError(28, os.strerror(28), "/plans")

    monkeypatch.setattr("server.commands.plans.write_durably", full)
    done = cli("plan", "check", draft, "--sign")
    assert (done.code, done.out) == (1, "")
    assert "No space left on device" in done.err
