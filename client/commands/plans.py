"""Decide about plans: list, review, approve, withdraw."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import DryRunOption, HomeOption, JsonOption, YesOption, existing_home
from common.command_line import can_ask, person, say, stdout
from common.errors import NotApprovedError, RefusedError, UsageError

if TYPE_CHECKING:
    from client.data_check import Fit

PlanArgument = Annotated[
    str,
    typer.Argument(metavar="PLAN", help="A signed plan's file, or the beginning of its digest.", show_default=False),
]
DigestArgument = Annotated[
    str, typer.Argument(metavar="DIGEST", help="The plan's digest, as `review` shows it.", show_default=False)
]


def review(plan: PlanArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what a plan asks, against which of your limits, what it would cost, and every reason to refuse it.

    The plan's file is kept here, so that it can be approved by its digest. The records are held against the plan, as by
    `data check`, and what does not fit is shown here and nowhere else: the node says nothing about it, and rows that do
    not fit add nothing. Nothing is sent, and nothing is spent.

    Example: `cloister-site review sepsis.plan` · one that was offered: `cloister-site review 3f9a`
    """
    from client.commands.records_view import show_fit
    from client.commands.review_view import review_json, show_terms, show_verdict
    from client.data_check import hold_records
    from client.review import open_desk

    desk = open_desk(existing_home(home))
    reviewed = desk.review(desk.take_in(plan))
    if as_json:
        print(json.dumps(review_json(reviewed, desk.config), indent=2, ensure_ascii=False))
        return
    console = stdout()
    show_terms(reviewed, desk.config, console)
    show_fit(hold_records(desk.config, reviewed.signed.plan))
    show_verdict(reviewed, console)  # last, so that nobody is told how to approve before having seen what does not fit


def approve(
    digest: DigestArgument, home: HomeOption = None, yes: YesOption = False, dry_run: DryRunOption = False
) -> None:
    """Say yes to one plan, by its whole digest: a beginning of it could be that of another plan, too.

    The records are held against the plan first; what does not fit is for you to judge: on a terminal you are asked, and
    elsewhere --yes says that it is meant. A plan that your policy or your budget refuses anyway cannot be approved
    (exit 10, 11); one that nobody has offered or reviewed here neither (12).

    Example: `cloister-site approve 3f9a…`, with all 64 digits
    """
    from client.approvals import approve as sign_approval
    from client.commands.records_view import show_fit
    from client.commands.review_view import cost_in_words
    from client.data_check import hold_records
    from client.review import open_desk
    from client.site_audit import note
    from common.audit_events import Approved

    site, by = existing_home(home), person()
    _refuse_part(digest)
    desk = open_desk(site)
    reviewed = desk.review(desk.find(digest))
    _refuse_unfit(reviewed.verdict.reasons, over_budget=reviewed.verdict.over_budget)
    name = reviewed.signed.plan.name
    until = reviewed.signed.valid_until
    if reviewed.approval is not None and reviewed.approval.valid_until >= until:
        say(f"{name} is approved already, by {reviewed.approval.by}")
        return
    fit = hold_records(desk.config, reviewed.signed.plan)
    show_fit(fit)
    say(f"{name}: {cost_in_words(reviewed)}")
    if dry_run:
        say("would approve it")
        return
    if not yes:
        _ask_about(name, fit)
    sign_approval(site, digest, by, until)
    note(site, Approved(plan=digest, by=by))
    say(f"approved by {by}; `cloister-site withdraw {digest[:12]}` takes it back")


def withdraw(digest: PlanArgument, home: HomeOption = None, dry_run: DryRunOption = False) -> None:
    """Take an approval back: the node refuses from the coordinator's next request on.

    What was spent stays spent, and what has left cannot be called back.

    Example: `cloister-site withdraw 3f9a`
    """
    from client.approvals import withdraw as take_back
    from client.review import open_desk
    from client.site_audit import note
    from common.audit_events import ApprovalWithdrawn

    site = existing_home(home)
    signed = open_desk(site).find(digest)
    if dry_run:
        say(f"would take the approval of {signed.plan.name} back")
        return
    take_back(site, signed.digest)
    note(site, ApprovalWithdrawn(plan=signed.digest, by=person()))
    say(f"the approval of {signed.plan.name} is withdrawn")


def plans(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the plans that were offered or reviewed here, and where each stands.

    Example: `cloister-site plans`
    """
    from client.commands.review_view import review_json, state_in_words
    from client.review import open_desk

    desk = open_desk(existing_home(home))
    reviews = [desk.review(signed) for signed in desk.plans()]
    if as_json:
        print(json.dumps([review_json(one, desk.config) for one in reviews], indent=2, ensure_ascii=False))
        return
    if not reviews:
        say("no plan was offered to this site yet, and none was reviewed")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("plan", "digest", "state", "rounds charged", "valid until"):
        table.add_column(column, no_wrap=column != "state")
    for one in reviews:
        signed = one.signed
        rounds = f"{one.last_round:,} of {signed.plan.rounds:,}" if one.last_round else "–"
        until = f"{signed.valid_until:%Y-%m-%d}"
        table.add_row(signed.plan.name, signed.digest[:12], state_in_words(one), rounds, until)
    stdout().print(table)


def _refuse_part(digest: str) -> None:
    """Refuse what is no whole digest.

    Raises:
        UsageError: It says whether that is a part of one, or something else, such as a file.
    """
    from client.review import DIGITS, is_prefix

    if not is_prefix(digest):
        hint = f"an approval takes all {DIGITS} digits: `cloister-site review FILE` shows them"
        raise UsageError(f"{digest[:DIGITS]!r} is no digest of a plan", hint=hint)
    if len(digest) != DIGITS:
        hint = "`cloister-site review` shows it; a part of it could be that of another plan, too"
        raise UsageError(f"an approval takes all {DIGITS} digits of a digest, not {len(digest)}", hint=hint)


def _ask_about(name: str, fit: Fit) -> None:
    """Have a person say yes, who must be there where the records fail: nobody is told later that they add nothing.

    Raises:
        NotApprovedError: When the answer is no.
        UsageError: When the records fail, and nobody can be asked.
    """
    if can_ask():
        question = "approve it all the same?" if fit.has_failed else "approve it for this hospital?"
        if not typer.confirm(question, err=True):
            raise NotApprovedError(f"{name} was not approved", hint="`cloister-site review` shows what it asks")
    elif fit.has_failed:
        raise UsageError(
            "the records do not fit the plan, and nobody is there to be asked about it",
            hint="mend the lines marked fail, or say that it is meant: --yes",
        )


def _refuse_unfit(reasons: tuple[object, ...], *, over_budget: bool) -> None:
    """Refuse to approve what the policy or the ledger would refuse anyway.

    Raises:
        RefusedError: When a limit of the policy is broken.
        BudgetError: When not enough is left.
    """
    from client.policy import Reason
    from common.errors import BudgetError

    broken = [one for one in reasons if isinstance(one, Reason) and one.code != "not-approved"]
    if broken:
        more = f"; and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise RefusedError(f"this hospital's policy refuses the plan: {broken[0]}{more}", hint=broken[0].hint)
    if over_budget:
        hint = "ask for fewer rounds or more noise, or raise the budget in site.toml on purpose"
        raise BudgetError("the privacy budget does not cover the plan", hint=hint)
