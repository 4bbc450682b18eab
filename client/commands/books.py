"""Look at the site's books from outside: verify, report, recover."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import DryRunOption, HomeOption, JsonOption, YesOption, existing_home
from common.command_line import can_ask, findings_table, person, say, stdout, tally
from common.errors import IntegrityError, RollbackError, UsageError
from common.findings import Finding

if TYPE_CHECKING:
    from client.home import SiteHome
    from client.report import SiteFacts
    from client.verification import Verified


def verify(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check ledger, audit log, plans and approvals: every hash, every signature, every cost.

    Changes nothing, and works while the node runs. Keep the last number and hash of the audit log somewhere else: they
    show later that nothing was taken away. With --json they are whole, beside the public key that checks the log. Exit
    13 where something was edited or damaged, 14 where something is older than it should be.

    Example: `cloister-site verify`
    """
    from client.verification import verify_site

    verified = verify_site(existing_home(home))
    findings = tuple(_finding(one) for one in verified)
    if as_json:
        told = [{**vars(finding), **one.facts} for finding, one in zip(findings, verified, strict=True)]
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        stdout().print(findings_table(findings))
        stdout().print(f"\n{tally(findings)}")
    _refuse_broken(verified)


def report(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER",
            help="Write report.md and report.html there; left out: Markdown to stdout.",
            show_default=False,
        ),
    ] = None,
    messages: Annotated[
        bool,
        typer.Option(
            "--messages",
            help="In place of the page, a line for each message that left, oldest first: time, class, plan, round, "
            "bytes, digest, recipient and kind, between tabs; with --json, a JSON object a line.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --messages: print JSON lines.")] = False,
    home: HomeOption = None,
) -> None:
    """Make one readable page of what left this hospital, who agreed to it, and what it cost.

    It is made from the audit log and the ledger, both verified first, and it says so where they do not hold.

    Examples: `cloister-site report > report.md` · `cloister-site report --output reports/2026-11` ·
    `cloister-site report --messages | grep masked`
    """
    if messages:
        if output is not None:
            raise UsageError("--messages goes to stdout, and --output is for the page", hint="give one of the two")
        _messages(existing_home(home), as_json=as_json)
    elif as_json:
        raise UsageError("the page is not made as JSON", hint="`report --messages --json` gives every message")
    else:
        _page(existing_home(home), output)


def _messages(site: SiteHome, *, as_json: bool) -> None:
    from client.keys import site_identity
    from client.report_messages import message_lines, message_objects
    from common.audit import read_audit
    from common.identity import public_name

    reading = read_audit(site.audit, site.audit_anchor, public_name(site_identity(site)))
    for line in (message_objects if as_json else message_lines)(reading.entries):
        print(line)
    if reading.fault is not None:
        rule = f"these lines are not to be relied on, and not all of them: {reading.fault.message}"
        raise type(reading.fault)(rule, hint=reading.fault.hint)


def _page(site: SiteHome, output: Path | None) -> None:
    from client.report import site_report
    from common.files import made_folder, write_together
    from common.private_files import PRIVATE_FILE

    facts = _facts(site)
    markdown, html = site_report(facts)
    if output is None:
        print(markdown, end="")
    else:
        pages = {output / "report.md": markdown.encode("utf-8"), output / "report.html": html.encode("utf-8")}
        with made_folder(output):
            write_together(pages, mode=PRIVATE_FILE)
        say(*(f"written: {path}" for path in pages))
    broken = [check.what for check in facts.checks if not check.holds]
    if broken:
        raise IntegrityError(f"the page is not to be relied on: {', '.join(broken)} did not pass", hint="see `verify`")


def recover(
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, in your words; kept in the ledger for good.")
    ],
    home: HomeOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Go on after the ledger or the audit log was lost, damaged, moved or put back; in writing, and at a price.

    The ledger: nobody can know what was spent since, so all of every budget counts as spent, and no plan from before
    can go on. Nothing is left until a person raises a budget in site.toml. The audit log, where it does not hold
    together: it is put aside, and a new one says so in its first line. Nothing is deleted.

    Example: `cloister-site recover --reason "disk replaced on 20 November, restored from the backup of the 18th"`
    """
    from client.node_process import running_node

    site = existing_home(home)
    if running_node(site) is not None:
        raise UsageError("the node runs, and holds the ledger", hint="`cloister-site stop` first")
    say(
        "recovering the ledger charges the worst case: all of every budget counts as spent,",
        "and no plan from before can go on; nothing is left until a person raises a budget in site.toml",
    )
    if dry_run:
        say("would recover it")
        return
    if not yes:
        if not can_ask():
            raise UsageError("nobody is there to confirm a recovery", hint="add --yes")
        if not typer.confirm("charge the worst case?", err=True):
            say("nothing was changed")
            return
    _recover(site, reason)


def _recover(site: SiteHome, reason: str) -> None:
    from client.keys import site_identity
    from client.ledger.anchor import host_identifier
    from client.ledger.recovery import recover_ledger
    from client.site_audit import note
    from common.audit import read_audit, recover_audit
    from common.audit_events import Recovered
    from common.canonical import file_digest
    from common.identity import public_name

    identity = site_identity(site)
    kept = recover_ledger(site.ledger, site.ledger_anchor, identity, host_identifier(site.keys), reason)
    if read_audit(site.audit, site.audit_anchor, public_name(identity)).fault is not None:
        recover_audit(site.audit, site.audit_anchor, identity, by=person())
        say("the audit log did not hold together: it was put aside, and a new one was begun")
    digest = None if kept is None else file_digest(kept)
    note(site, Recovered(what="ledger", by=person(), digest=digest))
    say(f"recovered{'' if kept is None else f'; the old ledger is kept as {kept}'}")
    say("next: raise the budget in site.toml by what you are willing to spend anew, and ask for a new plan")


def _facts(site: SiteHome) -> SiteFacts:
    from client.books import budgets_of, look_at_ledger
    from client.config import load_site_config
    from client.enrolment import read_pinned
    from client.keys import site_identity
    from client.report import SiteFacts
    from client.spending import spending
    from client.verification import verify_site
    from common.audit import read_audit
    from common.enrolment import fingerprint
    from common.identity import public_name

    config, identity = load_site_config(site.config), site_identity(site)
    verified = verify_site(site)
    holds = {one.check.what: one.check.holds for one in verified}
    pinned = read_pinned(site).invitation if site.coordinator.exists() and holds["coordinator"] else None
    books = look_at_ledger(site, identity, budgets_of(config)) if holds["ledger"] else None
    return SiteFacts(
        site=config.name,
        federation=pinned.federation_name if pinned else "",
        coordinator=fingerprint(pinned.coordinator) if pinned else "",
        made=datetime.now(UTC),
        entries=read_audit(site.audit, site.audit_anchor, public_name(identity)).entries,
        budgets=[one.table for one in spending(books)] if books else [],
        checks=[one.check for one in verified],
    )


def _finding(one: Verified) -> Finding:
    return Finding(one.level, one.check.what, one.check.finding, one.hint)


def _refuse_broken(verified: tuple[Verified, ...]) -> None:
    broken = [one for one in verified if not one.check.holds]
    if not broken:
        return
    kind = RollbackError if any(one.exit_code == RollbackError.exit_code for one in broken) else IntegrityError
    raise kind(f"{', '.join(one.check.what for one in broken)} did not pass", hint=broken[0].hint)
