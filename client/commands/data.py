"""Look at the records before anything is trained on them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import HomeOption, JsonOption, existing_home
from common.command_line import findings_table, say, stdout, tally
from common.errors import DataError

if TYPE_CHECKING:
    from client.home import SiteHome
    from common.plan import Plan

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Look at this hospital's records.")


@app.callback()
def _group() -> None:
    """Look at this hospital's records."""


@app.command()
def check(
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="A signed plan's file, or the beginning of its digest; left out: the newest that is here, if any.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether the records fit a plan: files, columns, labels, patients, what a step would draw.

    Nothing of a record is shown, and nothing leaves this screen; the counts are exact, so keep them to yourself.

    Example: `cloister-site data check` · `cloister-site data check --plan sepsis.plan`
    """
    from client.config import load_site_config
    from client.data_check import check_data

    site = existing_home(home)
    config, chosen = load_site_config(site.config), _chosen(site, plan)
    fit = "any plan: none is here yet" if chosen is None else f"plan {chosen.name} ({chosen.digest[:12]})"
    say(f"checking the records of {config.name} for {fit}")
    findings = check_data(config, chosen)
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        stdout().print(findings_table(findings))
        stdout().print(f"\n{tally(findings)}")
    say("these counts are exact, and this hospital's: nothing was sent, and nothing was written down")
    if any(finding.level == "fail" for finding in findings):
        raise DataError("the records do not fit", hint="mend the lines marked fail")


def _chosen(site: SiteHome, plan: str | None) -> Plan | None:
    """The plan asked for, or the newest one that is here."""
    if plan is None and not site.coordinator.exists():
        return None
    from client.review import open_desk

    desk = open_desk(site)
    if plan is not None:
        return desk.take_in(plan).plan
    return next((signed.plan for signed in desk.plans()), None)
