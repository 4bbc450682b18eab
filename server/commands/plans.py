"""plan check, plan list, plan show: from a draft to the signed plan that hospitals review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from common.audit_events import PlanSigned
from common.command_line import can_ask, findings_table, person, say, stderr, stdout, tally
from common.errors import ConfigError, UsageError
from common.files import write_durably
from common.moments import current_moment, moment_text
from common.signed_plan import SignedPlan, write_signed_plan
from server.commands.options import HomeOption, JsonOption, open_home, print_json, record
from server.config import CoordinatorConfig
from server.enrolment import enrolled
from server.home import CoordinatorHome
from server.plan_draft import read_draft
from server.signed_plans import issue_plan, plan_called, signed_plans

if TYPE_CHECKING:
    from server.plan_check import CheckedPlan

plans = typer.Typer(no_args_is_help=True, help="Check a plan, sign it, and see those that were signed.")


@plans.command()
def check(
    draft: Annotated[
        Path, typer.Argument(metavar="PLAN.toml", help="The plan as a person writes it.", show_default=False)
    ],
    chosen_sites: Annotated[
        str | None,
        typer.Option(
            "--sites", metavar="A,B,C", help="Sites that take part; else all that are enrolled.", show_default=False
        ),
    ] = None,
    sign: Annotated[bool, typer.Option("--sign", help="Sign it without asking, if no check fails.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Where the signed plan is written to.",
            show_default="NAME-DIGEST.plan.json here",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """See what a plan would cost (ε, masks, bytes, time), then sign it and write the file that hospitals review.

    The noise is calibrated to the draft's ε, the enrolled sites become its roster, and the base of coordinator.toml is
    named by its hashes. A signed plan's digest goes to stdout, alone.

    Examples: `cloister-coordinator plan check plan.toml` · `… plan check plan.toml --sign --sites north,south,west`
    """
    chosen, config = open_home(home)
    written, roster = read_draft(draft), _roster(chosen, chosen_sites)
    from server.plan_check import check_plan  # takes seconds: after what a person may have mistyped

    checked = check_plan(written, roster, config)
    if not as_json:
        asks = checked.fits and not sign and can_ask()
        console = stderr() if sign or asks else stdout()
        console.print(findings_table(checked.findings))
        console.print(f"\n{tally(checked.findings)}")
    signed = _sign(chosen, config, checked, sign=sign, may_ask=not as_json)
    file = None if signed is None else _write(signed, output)
    if as_json:
        print_json(_as_json(checked, signed, file))
    elif signed is not None:
        say(f"signed until {moment_text(signed.valid_until)}; send {file} to the hospitals of its roster", "digest:")
        print(signed.digest)
    if not checked.fits:
        raise ConfigError("the plan does not fit", hint="mend the lines marked fail")


def _roster(home: CoordinatorHome, chosen: str | None) -> dict[str, str]:
    known = {site.name: site.public for site in enrolled(home)}
    names = sorted(known) if chosen is None else [name.strip() for name in chosen.split(",") if name.strip()]
    missing = [name for name in names if name not in known]
    if missing:
        told = ", ".join(sorted(known)) or "none"
        raise UsageError(f"site {missing[0][:64]!r} is not enrolled", hint=f"enrolled sites: {told}")
    if not names:
        raise ConfigError(
            "no site is enrolled, so there is nobody to plan for", hint="cloister-coordinator enrol JOIN-REQUEST"
        )
    return {name: known[name] for name in names}


def _sign(
    home: CoordinatorHome, config: CoordinatorConfig, checked: CheckedPlan, *, sign: bool, may_ask: bool
) -> SignedPlan | None:
    if not checked.fits:
        return None
    if not sign:
        if not (may_ask and can_ask()):
            return None
        if not typer.confirm(f"Sign it for {config.plan_validity_days} days?", err=True):
            return None
    was_there = home.plan(checked.plan.digest).exists()
    signed = issue_plan(home, config, checked.plan, current_moment())
    if not was_there:
        record(home, PlanSigned(plan=signed.digest, name=signed.plan.name, by=person()))
    return signed


def _write(signed: SignedPlan, output: Path | None) -> Path:
    path = output or Path(f"{signed.plan.name}-{signed.digest[:8]}.plan.json")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder of {path} does not exist", hint="make it, or choose another --output")
    write_durably(path, write_signed_plan(signed))
    return path


def _as_json(checked: CheckedPlan, signed: SignedPlan | None, file: Path | None) -> dict[str, object]:
    return {
        "fits": checked.fits,
        "findings": [vars(finding) for finding in checked.findings],
        "digest": checked.plan.digest,
        "signed": None if signed is None else str(file),
        "valid_until": None if signed is None else moment_text(signed.valid_until),
    }


@plans.command("list")
def list_plans(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the plans that were signed here, the oldest first.

    Example: `cloister-coordinator plan list`
    """
    chosen, _ = open_home(home)
    signed, now = signed_plans(chosen), current_moment()
    if as_json:
        print_json([_line(plan) for plan in signed])
        return
    if not signed:
        say("no plan is signed yet; `cloister-coordinator plan check PLAN.toml` shows its cost and signs it")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("plan", "digest", "sites", "rounds", "valid until"):
        table.add_column(name, no_wrap=True)
    for plan in signed:
        until = f"{plan.valid_until:%Y-%m-%d}" + ("" if plan.is_valid_at(now) else " (over)")
        table.add_row(plan.plan.name, plan.digest[:16], str(plan.plan.sites), str(plan.plan.rounds), until)
    stdout().print(table)


def _line(signed: SignedPlan) -> dict[str, object]:
    return {
        "name": signed.plan.name,
        "digest": signed.digest,
        "sites": sorted(signed.plan.roster),
        "rounds": signed.plan.rounds,
        "issued": moment_text(signed.issued),
        "valid_until": moment_text(signed.valid_until),
    }


@plans.command()
def show(
    plan: Annotated[
        str, typer.Argument(metavar="DIGEST", help="Digest, its beginning, or the plan's file.", show_default=False)
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a signed plan: its cost in words and every constant; --json gives the very document that was signed.

    Example: `cloister-coordinator plan show 3f2a`
    """
    chosen, _ = open_home(home)
    signed = plan_called(chosen, plan)
    if as_json:
        print(write_signed_plan(signed).decode("utf-8"))
        return
    from common.plan_findings import check_masks, check_privacy

    out = stdout()
    out.print(f"plan     {signed.plan.name}", markup=False)
    out.print(f"digest   {signed.digest}", soft_wrap=True)
    out.print(f"signed   {moment_text(signed.issued)}, valid until {moment_text(signed.valid_until)}", soft_wrap=True)
    out.print(f"sites    {', '.join(sorted(signed.plan.roster))}", markup=False, soft_wrap=True)
    out.print(findings_table((check_privacy(signed.plan), check_masks(signed.plan))))
    for line in _constants(signed):
        out.print(line, markup=False, soft_wrap=True)


def _constants(signed: SignedPlan) -> list[str]:
    """Every section as `section.key = value`, without roster and hashes."""
    lines = [""]
    for section, content in signed.plan.model_dump(mode="json", exclude={"roster", "base"}).items():
        if isinstance(content, dict):
            lines += [f"{section}.{key} = {value}" for key, value in content.items() if value is not None]
        else:
            lines.append(f"{section} = {content}")
    return [*lines, f"base = {signed.plan.base.name} ({signed.plan.base.digest[:16]})"]
