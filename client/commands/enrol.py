"""From an empty folder to a pinned coordinator: init, request, accept."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from client.commands.options import DryRunOption, HomeOption, chosen_home, existing_home
from common.command_line import can_ask, person, say, stderr
from common.errors import AccessError, UsageError

if TYPE_CHECKING:
    from client.home import SiteHome
    from common.enrolment import Invitation

_OPTIONS = {"name": "--name", "data.folder": "--data", "data.train": "--train", "data.dataset": "--dataset"}


def init(
    name: Annotated[str, typer.Option("--name", help="This hospital's name in plans and rosters, such as north.")],
    home: HomeOption = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FOLDER", help="Where the records are.", show_default=False)
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option("--train", metavar="FILE", help="A file of records in it; may be repeated.", show_default=False),
    ] = None,
    dataset: Annotated[str, typer.Option("--dataset", help="What the ledger calls these records.")] = "records",
    dry_run: DryRunOption = False,
) -> None:
    """Make this hospital's folder: keys, settings with every limit explained, an empty ledger, an audit log.

    Nothing is overwritten, and nothing is sent. Records that are not there yet are a warning.

    Example: `cloister-site init --name north --data /home/someone/records --train 2026.parquet`
    """
    from client.config import SiteConfig
    from client.initialise import initialise, missing_records
    from client.site_template import site_toml
    from common.typed_options import parse_typed

    site = chosen_home(home)
    folder = "." if data is None else str(data.absolute())
    text = site_toml(name, folder=folder, train=train or ("records.csv",), dataset=dataset)
    config = parse_typed(SiteConfig, tomllib.loads(text), _OPTIONS)
    missing = missing_records(site, config) if data is not None or train else ()
    warnings = [f"warn  {sentence}" for sentence in missing]
    if dry_run:
        print(text, end="")
        say(*warnings, f"would make {site.path} with this site.toml, two keys, a ledger and an audit log")
        return
    from client.books import begin_books

    initialise(site, text, lambda draft: begin_books(draft, person()))
    say(f"site {name} is made: {site.path}", *warnings, "", "next:", *_next_steps(site, has_data=data is not None))


def request(home: HomeOption = None) -> None:
    """Print the file that asks a coordinator to enrol this hospital.

    Send it by any way, and read the fingerprint to the coordinator over the phone: the file cannot be exchanged on its
    way without the fingerprint changing. It holds public keys only.

    Example: `cloister-site request > join-request`
    """
    from client.config import load_site_config
    from client.enrolment import make_request
    from client.keys import site_identity
    from common.enrolment import fingerprint
    from common.identity import public_name

    site = existing_home(home)
    text = make_request(site, load_site_config(site.config))
    print(text, end="")
    say(
        f"fingerprint of this site: {fingerprint(public_name(site_identity(site)))}",
        "send the file to the coordinator, and read them this fingerprint over the phone",
    )


def accept(
    invitation: Annotated[Path, typer.Argument(help="The file that the coordinator sent.", show_default=False)],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="F",
            help="The coordinator's fingerprint, as they read it to you over the phone.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Pin the coordinator of an invitation: from then on this hospital listens to that one alone.

    On a terminal the fingerprint is shown and asked about; elsewhere it must be given.

    Example: `cloister-site accept invitation --fingerprint ABCD-EFGH-IJKL-MNOP-QRST-UVWX`
    """
    from client.enrolment import accept as pin
    from client.enrolment import check_invitation
    from client.node_process import running_node
    from common.armour import read_armoured_file

    site = existing_home(home)
    text = read_armoured_file(invitation)
    checked = check_invitation(site, text)
    stderr().print(_shown(checked))
    if dry_run:
        say("", "would pin this coordinator")
        return
    if fingerprint is None:
        _ask_about(checked)
    pinned = pin(site, text, fingerprint).invitation
    is_new = _begin_conversation(site, pinned)
    say("", f"{'pinned' if is_new else 'pinned already'}: this site listens to {pinned.federation_name} and no other")
    if running_node(site) is not None:
        say("the node that runs goes on with what it had: `cloister-site stop`, then `cloister-site start`")
    say("next: `cloister-site data check`, then wait for a plan: `cloister-site plans`")


def _next_steps(site: SiteHome, *, has_data: bool) -> tuple[str, ...]:
    from client.home import default_home

    at_home = () if site.path == default_home() else (f"  0. export CLOISTER_SITE_HOME={shlex.quote(str(site.path))}",)
    where = "look through the limits" if has_data else "say where the records are, and look through the limits"
    return (
        *at_home,
        f"  1. {where} in {site.config}",
        "  2. cloister-site request > join-request   and send that file to the coordinator",
        "  3. cloister-site accept INVITATION        once they have answered",
        f"keep a backup of {site.keys}, and never put an older copy of the other files back",
    )


def _shown(invitation: Invitation) -> Table:
    from common.enrolment import fingerprint

    rows = (
        ("federation", invitation.federation_name),
        ("coordinator at", invitation.address),
        ("invites", invitation.site),
        ("written", f"{invitation.created:%Y-%m-%d %H:%M} UTC"),
        ("fingerprint", f"[bold]{fingerprint(invitation.coordinator)}[/bold]"),
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, value in rows:
        table.add_row(f"[dim]{what}[/dim]", value if what == "fingerprint" else escape(value))
    return table


def _ask_about(invitation: Invitation) -> None:
    if not can_ask():
        raise UsageError(
            "nobody is there to compare the fingerprint",
            hint="give what the coordinator read over the phone: --fingerprint ABCD-EFGH-…",
        )
    say("", "call the coordinator on a number that you know, and have them read their fingerprint")
    if not typer.confirm("is it the one above, letter by letter?", err=True):
        raise AccessError(
            f"the invitation to {invitation.federation_name} was not accepted",
            hint="if the fingerprints differ, somebody exchanged the invitation on its way: ask for it again",
        )


def _begin_conversation(site: SiteHome, invitation: Invitation) -> bool:
    """Begin the inbox record at the first acceptance, so that a missing one is a lost one later.

    What counts as the first is in the audit log: a kill between pinning and here is made good by accepting again.
    """
    from client.inbox import Inbox
    from client.keys import site_identity
    from client.site_audit import open_audit
    from common.audit import verify_audit
    from common.audit_events import Joined
    from common.identity import public_name

    identity = site_identity(site)
    audit = open_audit(site)
    entries = verify_audit(site.audit, site.audit_anchor, public_name(identity)).entries
    joined = any(isinstance(one.event, Joined) and one.event.federation == invitation.federation for one in entries)
    Inbox(site.inbox, invitation.federation, invitation.site, identity, invitation.coordinator, must_exist=joined)
    if not joined:
        audit.record(Joined(federation=invitation.federation, coordinator=invitation.coordinator, by=person()))
    return not joined
