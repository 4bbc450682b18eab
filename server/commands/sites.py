"""enrol, withdraw, sites: who belongs to the federation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from common.armour import read_armoured_file
from common.audit_events import Enrolled, Withdrawn
from common.command_line import can_ask, person, say, stdout
from common.enrolment import fingerprint, read_join_request
from common.errors import ConfigError, UsageError
from common.identity import public_name
from common.key_files import read_identity
from server.commands.options import DryRunOption, HomeOption, JsonOption, open_home, print_json, record
from server.enrolment import enrol as enrol_site
from server.enrolment import enrolled
from server.enrolment import withdraw as withdraw_site
from server.home import CoordinatorHome
from server.service_status import read_status


def enrol(
    request: Annotated[Path, typer.Argument(metavar="JOIN-REQUEST", help="The file that the hospital sent.")],
    expected: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="F",
            help="What the hospital read over the phone; must be the request's.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Let a hospital in: its invitation goes to stdout, both fingerprints to stderr.

    Compare the hospital's fingerprint over the phone, by --fingerprint or when asked, and read out your own: whoever
    carries the two files could otherwise put another key into one.

    Example: `cloister-coordinator enrol join-request --fingerprint ABCD-… > invitation`
    """
    chosen, _ = open_home(home)
    text = read_armoured_file(request)
    asked = read_join_request(text)
    say(f"site         {asked.site}", f"fingerprint  {fingerprint(asked.identity)}")
    if expected is None and not dry_run:
        _ask_for_comparison(asked.site)
    if dry_run:
        _refuse_in_use(chosen, asked.site, asked.identity)
        return
    known = {site.name for site in enrolled(chosen)}
    invitation = enrol_site(chosen, text, expected_fingerprint=expected)
    if asked.site not in known:
        record(chosen, Enrolled(site=asked.site, public=asked.identity, by=person()))
    print(invitation, end="")
    ours = fingerprint(public_name(read_identity(chosen.identity_key)))
    say(
        f"{asked.site} is enrolled" if asked.site not in known else f"{asked.site} was enrolled already; invited anew",
        "Send it the invitation, and read it this fingerprint of yours over the phone:",
        f"             {ours}",
    )


def _ask_for_comparison(site: str) -> None:
    if not can_ask():
        raise UsageError(
            "nobody is there to compare the fingerprint",
            hint="give what the hospital read over the phone: --fingerprint ABCD-EFGH-…",
        )
    if not typer.confirm(f"Does {site} read the same fingerprint over the phone?", err=True):
        raise UsageError(
            "the fingerprint was not confirmed, so nobody was enrolled", hint="ask the hospital for its request again"
        )


def _refuse_in_use(home: CoordinatorHome, name: str, public: str) -> None:
    for site in enrolled(home):
        if (site.name == name) != (site.public == public):
            raise ConfigError(f"the request would clash with the enrolled site {site.name}", hint="withdraw that first")
    say(f"would enrol {name}")


def withdraw(
    site: Annotated[str, typer.Argument(metavar="SITE", help="Name of an enrolled site.", show_default=False)],
    home: HomeOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Take a hospital out: it can no longer connect, and its name is free again.

    Plans whose roster names it cannot run any more. What it knows of finished runs stays with it.

    Example: `cloister-coordinator withdraw north`
    """
    chosen, _ = open_home(home)
    if dry_run:
        if site not in {known.name for known in enrolled(chosen)}:
            raise ConfigError(f"no site {site[:64]!r} is enrolled", hint="`cloister-coordinator sites` shows them")
        say(f"would withdraw {site}")
        return
    withdraw_site(chosen, site)
    record(chosen, Withdrawn(site=site, by=person()))
    say(f"{site} is withdrawn; a running service lets it connect no longer")


def sites(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the enrolled hospitals, and, while the service runs, which are connected.

    Example: `cloister-coordinator sites --json`
    """
    chosen, _ = open_home(home)
    known, status = enrolled(chosen), read_status(chosen)
    online = None if status is None else status.online
    if as_json:
        print_json(
            [
                {
                    "site": site.name,
                    "fingerprint": fingerprint(site.public),
                    "enrolled": f"{site.enrolled:%Y-%m-%dT%H:%M:%SZ}",
                    "online": None if online is None else online.get(site.name, False),
                }
                for site in known
            ]
        )
        return
    if not known:
        say("no hospital is enrolled yet; `cloister-coordinator enrol JOIN-REQUEST` lets one in")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("site", "connected", "enrolled", "fingerprint"):
        table.add_column(name, no_wrap=name != "fingerprint")
    for site in known:
        here = "?" if online is None else ("yes" if online.get(site.name) else "no")
        table.add_row(site.name, here, f"{site.enrolled:%Y-%m-%d}", fingerprint(site.public))
    stdout().print(table)
    if online is None and sys.stderr.isatty():
        say("The service is not running: `cloister-coordinator start` lets them connect.")
