import json
import subprocess
import sys

import pytest

from client.approvals import read_approval
from client.books import budgets_of
from client.config import load_site_config
from client.keys import site_identity
from client.ledger.anchor import host_identifier
from client.ledger.ledger import open_ledger
from client.site_audit import note
from common.audit import verify_audit
from common.audit_events import ApprovalWithdrawn, Approved, PlanSeen, Reserved, RoundCharged
from common.identity import new_identity, public_name
from common.privacy.mechanism import mechanism_of
from common.signed_plan import sign_plan, write_signed_plan
from tests.site_commands import Play


def kinds(play: Play) -> list[str]:
    public = public_name(site_identity(play.site))
    entries = verify_audit(play.site.audit, play.site.audit_anchor, public).entries
    return [type(entry.event).__name__ for entry in entries]


def ledger(play: Play):
    identity, home = site_identity(play.site), play.site
    budgets = budgets_of(load_site_config(home.config))
    return open_ledger(home.ledger, home.ledger_anchor, identity, budgets, host_identifier(home.keys))


def reserve(play: Play, signed) -> None:
    """As the node does when a plan's first request comes, and its seventh round."""
    with ledger(play) as books:
        plan = signed.plan
        books.reserve(signed.digest, plan.name, signed.coordinator, "records", mechanism_of(plan), plan.rounds)
        books.commit(signed.digest, 7, "1" * 64)
    note(play.site, Reserved(plan=signed.digest, dataset="records", unit="patient", rounds=plan.rounds, cost=1.0))
    note(play.site, RoundCharged(plan=signed.digest, round_number=7, order="1" * 64))


# --- review ---


def write_records(play: Play, *labels: str, text: str = "the patient had fever on day {}") -> None:
    (path,) = load_site_config(play.site.config).train_files
    path.parent.mkdir(exist_ok=True)
    lines = [f"p{number // 4},{text.format(number)},{labels[number % len(labels)]}" for number in range(400)]
    path.write_text("\n".join(["patient_id,text,label", *lines]) + "\n")


def test_review_and_approve_show_what_does_not_fit_in_the_records_and_write_it_nowhere(joined: Play) -> None:
    """The node says nothing about it, so a person must see it before."""
    signed, plan = joined.sign()
    write_records(joined, signed.plan.task.labels[0], "hiv")
    for ended in (joined("review", plan), joined("approve", signed.digest, "--yes")):
        assert ended.code == 0
        assert "is not one of the plan's labels in 200 rows" in " ".join(ended.err.split())
        assert "hiv" not in ended.err + ended.out
        assert "200 of your 400 rows would add nothing to this plan" in ended.err
        assert "plan's labels" not in ended.out
    assert "plan's labels" not in joined.site.audit.read_text()


def test_a_plan_that_no_record_fits_is_not_approved_unless_somebody_says_so(joined: Play) -> None:
    """The hospital would pay all of it for nothing, and by design nobody tells it later."""
    signed, path = joined.sign()
    write_records(joined, "hiv")
    joined("review", path)
    ended = joined("approve", signed.digest)
    assert ended.code == 2
    assert "none of your 400 rows would add anything to this plan; its ε would be spent all the same" in ended.err
    assert "--yes" in ended.err
    assert read_approval(joined.site, signed.digest) is None
    assert Approved.__name__ not in kinds(joined)
    assert joined("approve", signed.digest, "--dry-run").code == 0
    assert joined("approve", signed.digest, "--yes").code == 0
    assert read_approval(joined.site, signed.digest) is not None


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_a_person_is_asked_whether_records_that_fail_are_meant(joined: Play, monkeypatch, answer) -> None:
    asked = []
    monkeypatch.setattr("client.commands.plans.can_ask", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, **_: asked.append(question) or answer)
    signed, path = joined.sign()
    write_records(joined, "hiv")
    joined("review", path)
    assert joined("approve", signed.digest).code == (0 if answer else 12)
    assert asked == ["approve it all the same?"]
    assert (read_approval(joined.site, signed.digest) is not None) == answer


def test_records_that_only_repeat_are_not_said_not_to_fit(joined: Play) -> None:
    signed, path = joined.sign()
    write_records(joined, *signed.plan.task.labels, text="the patient had fever")
    shown = joined("review", path).err
    assert "texts that repeat an earlier one: 399" in " ".join(shown.split())
    assert "the records fit the plan" in shown
    assert "who asks for other labels" not in shown
    ended = joined("approve", signed.digest)
    assert (ended.code, "who asks for other labels" in ended.err) == (0, False)


def test_what_does_not_fit_is_shown_before_the_line_that_tells_to_approve(joined: Play) -> None:
    signed, path = joined.sign()
    write_records(joined, "hiv")
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", "review", str(path), "--home", str(joined.site.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    told = done.stdout
    assert told.index("none of your 400 rows") < told.index(f"cloister-site approve {signed.digest}")
    assert told.index("the run costs") < told.index("none of your 400 rows")


def test_review_shows_every_limit_the_cost_and_the_whole_digest(joined: Play) -> None:
    signed, path = joined.sign()
    ended = joined("review", path)
    assert ended.code == 0
    assert f"cloister-site approve {signed.digest}" in ended.out
    assert "15.4 % of the budget, which leaves 84.6 % of it" in ended.out
    assert "✗" not in ended.out
    assert joined.site.plan(signed.digest).exists()
    assert kinds(joined).count(PlanSeen.__name__) == 1


def test_a_reviewed_plan_is_found_by_the_beginning_of_its_digest(joined: Play) -> None:
    signed, path = joined.sign()
    joined("review", path)
    assert joined("review", signed.digest[:8]).out == joined("review", path).out
    assert kinds(joined).count(PlanSeen.__name__) == 1


def test_review_lists_every_reason_to_refuse(joined: Play) -> None:
    _, path = joined.sign(rounds=3000, privacy={"noise_multiplier": 0.3}, minimum_sites=2)
    ended = joined("review", path)
    assert ended.code == 0
    assert "refused, for 4 reasons" in ended.out
    assert ended.out.count("✗") == 3
    assert "cloister-site approve" not in ended.out
    codes = json.loads(joined("review", path, "--json").out)["codes"]
    assert codes == ["epsilon-too-high", "not-approved", "over-budget", "too-little-noise", "too-many-rounds"]


def test_what_a_plan_says_cannot_write_on_the_screen(joined: Play) -> None:
    _, path = joined.sign(task={"labels": ("a\x1b[2J", "[red]b"), "positive_label": "[red]b"})
    ended = joined("review", path)
    out = ended.out
    assert "\x1b[2J" not in out + ended.err
    assert "[red]b" in out


def test_review_works_while_the_node_holds_the_ledger(joined: Play) -> None:
    _, path = joined.sign()
    with ledger(joined):
        assert joined("review", path).code == 0
        assert joined("plans").code == 0


def test_review_refuses_a_plan_of_another_coordinator(joined: Play) -> None:
    signed, path = joined.sign()
    other = sign_plan(signed.plan, signed.federation, signed.issued, signed.valid_until, new_identity())
    path.write_bytes(write_signed_plan(other))
    ended = joined("review", path)
    assert ended.code == 13
    assert "another coordinator" in ended.err
    assert not list(joined.site.plans.iterdir())


def test_review_before_an_invitation_says_what_comes_first(play: Play) -> None:
    play.init()
    ended = play("review", "3f9a")
    assert ended.code == 3
    assert "accept" in ended.err


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 10, b"[" * 100_000])
def test_a_malformed_plan_is_one_sentence(joined: Play, content: bytes) -> None:
    path = joined.folder / "bad.plan"
    path.write_bytes(content)
    ended = joined("review", path)
    assert ended.code == 13
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("invitation", "this is an invitation, and a signed plan is wanted"),
        (
            'name = "study"\n\n[plan.privacy]\nnoise_multiplier = 1.2\n',
            "this is a draft of a plan, or another TOML file, and a signed plan is wanted",
        ),
    ],
)
def test_another_file_is_not_called_damaged(joined: Play, content: str, told: str) -> None:
    path = joined.folder / "wrong"
    path.write_text((joined.folder / content).read_text() if content == "invitation" else content)
    ended = joined("review", path)
    assert ended.code == 3
    assert told in ended.err
    assert "on the way" not in ended.err
    assert ("plan check --sign" in ended.err) == ("draft" in told)


# --- approve ---


def test_approve_signs_and_writes_it_down(joined: Play) -> None:
    signed = joined.approved()
    approval = read_approval(joined.site, signed.digest)
    assert approval is not None
    assert kinds(joined).count(Approved.__name__) == 1
    assert "accepted" in joined("plans").out
    again = joined("approve", signed.digest)
    assert (again.code, "already" in again.err) == (0, True)
    assert kinds(joined).count(Approved.__name__) == 1


def test_a_plan_that_nobody_has_seen_here_cannot_be_approved(joined: Play) -> None:
    signed, _ = joined.sign()
    ended = joined("approve", signed.digest)
    assert ended.code == 12
    assert "review" in ended.err
    assert read_approval(joined.site, signed.digest) is None


def test_what_is_not_here_is_said_to_be_neither_file_nor_digest(joined: Play) -> None:
    signed, path = joined.sign()
    joined("review", path)
    ended = joined("review", "nosuch.plan")
    assert (ended.code, "there is no file 'nosuch.plan', and no digest begins so" in ended.err) == (3, True)
    ended = joined("approve", path.name)
    assert (ended.code, f"'{path.name}' is no digest of a plan" in ended.err) == (2, True)
    assert "cloister-site review" in ended.err
    mistyped = signed.digest[:-1] + ("0" if signed.digest[-1] != "0" else "1")
    ended = joined("approve", mistyped)
    assert (ended.code, "no plan here has this digest" in ended.err) == (12, True)
    ended = joined("review", mistyped[-6:])
    assert (ended.code, f"a digest that begins with '{mistyped[-6:]}'" in ended.err) == (12, True)


def test_approve_takes_the_whole_digest_only(joined: Play) -> None:
    signed, path = joined.sign()
    joined("review", path)
    assert joined("approve", signed.digest[:63]).code == 2
    assert read_approval(joined.site, signed.digest) is None


def test_what_the_policy_refuses_anyway_cannot_be_approved(joined: Play) -> None:
    signed, path = joined.sign(privacy={"noise_multiplier": 0.49, "sampling_rate": 0.01}, rounds=2)
    joined("review", path)
    ended = joined("approve", signed.digest)
    assert ended.code == 10
    assert "noise_floor" in ended.err
    assert read_approval(joined.site, signed.digest) is None


def test_what_the_budget_does_not_cover_cannot_be_approved(joined: Play) -> None:
    first = joined.approved(name="first", rounds=700)
    reserve(joined, first)
    second, path = joined.sign(name="second", rounds=700)
    joined("review", path)
    assert joined("approve", second.digest).code == 11
    assert read_approval(joined.site, second.digest) is None


def test_a_dry_run_approves_nothing(joined: Play) -> None:
    signed, path = joined.sign()
    joined("review", path)
    assert joined("approve", signed.digest, "--dry-run").code == 0
    assert read_approval(joined.site, signed.digest) is None


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 12)])
def test_on_a_terminal_a_person_is_asked(joined: Play, monkeypatch, answer: bool, code: int) -> None:
    monkeypatch.setattr("client.commands.plans.can_ask", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer)
    signed, path = joined.sign()
    joined("review", path)
    assert joined("approve", signed.digest).code == code
    assert (read_approval(joined.site, signed.digest) is not None) == answer


# --- withdraw, plans ---


def test_withdraw_takes_it_back_and_writes_it_down(joined: Play) -> None:
    signed = joined.approved()
    assert joined("withdraw", signed.digest[:8], "--dry-run").code == 0
    assert read_approval(joined.site, signed.digest) is not None
    assert joined("withdraw", signed.digest[:8]).code == 0
    assert read_approval(joined.site, signed.digest) is None
    assert kinds(joined).count(ApprovalWithdrawn.__name__) == 1
    assert joined("withdraw", signed.digest).code == 2


def test_plans_tells_where_each_stands(joined: Play) -> None:
    assert joined("plans").out == ""
    reserve(joined, joined.approved(name="running"))
    for name, changes in {"waiting": {}, "greedy": {"rounds": 3000}}.items():
        joined("review", joined.sign(name=name, **changes)[1])
    lines = {line.split()[0]: line for line in joined("plans").out.splitlines()}
    assert "under way" in lines["running"]
    assert "7 of 200" in lines["running"]
    assert "waits for an approval" in lines["waiting"]
    assert "refused: " in lines["greedy"]
    states = {one["name"]: one["state"] for one in json.loads(joined("plans", "--json").out)}
    assert states == {"running": "accepted", "waiting": "waiting", "greedy": "refused"}
