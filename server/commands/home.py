"""init, renew, verify: the coordinator's own folder."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from common.address import parse_address
from common.audit import AuditLog
from common.audit_events import AdminCommand
from common.command_line import findings_table, person, say, stdout
from common.enrolment import fingerprint
from common.errors import ConfigError, UsageError
from common.findings import counted, times
from common.identity import public_name
from common.key_files import read_identity
from common.moments import current_moment
from common.typed_options import parse_typed
from server.commands.options import DryRunOption, HomeOption, JsonOption, home_at, open_home, print_json, record
from server.config import CoordinatorConfig
from server.home import CoordinatorHome

_SHOWN_DIGITS = 24
"""Of a hash's 64: enough that nobody makes another line with them."""


def init(
    name: Annotated[
        str,
        typer.Option(
            "--name",
            help="Name of the federation, as invitations show it: letters, digits, dots, - and _.",
            show_default=False,
        ),
    ],
    address: Annotated[
        str,
        typer.Option(
            "--address", metavar="HOST:PORT", help="Where hospitals will reach this machine.", show_default=False
        ),
    ],
    home: HomeOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make this coordinator: identity, certificate authority, server certificate, settings, folders, audit log.

    Nothing is ever overwritten. Keep a backup of the folder `keys`: hospitals know this coordinator by what is in it.

    Example: `cloister-coordinator init --name sepsis --address study.example.org:9443`
    """
    from server.initialise import initialise

    chosen, reached = home_at(home), _typed(name, address)
    if dry_run:
        say(f"would make a coordinator for {reached} at {chosen.path}")
        return
    config = initialise(chosen, name, reached, begin=_begin_audit)
    mark = fingerprint(_public(chosen))
    if as_json:
        print_json({"home": str(chosen.path), "name": config.name, "address": config.address, "fingerprint": mark})
        return
    out = stdout()
    out.print(f"coordinator of {config.name} at {config.address}", soft_wrap=True)
    out.print(f"home         {chosen.path}", soft_wrap=True)
    out.print(f"fingerprint  {mark}", soft_wrap=True)
    for line in _next_steps(chosen, home is not None):
        out.print(line, markup=False, soft_wrap=True)


def _typed(name: str, address: str) -> str:
    """The address in the one spelling, once it and the name are known to be good."""
    try:
        reached = str(parse_address(address))
    except ConfigError as error:
        raise UsageError(f"--address: {error.message}", hint=error.hint) from None
    parse_typed(CoordinatorConfig, {"name": name, "address": reached}, {"name": "--name", "address": "--address"})
    return reached


def _next_steps(home: CoordinatorHome, elsewhere: bool) -> tuple[str, ...]:
    first = (f"    export CLOISTER_COORDINATOR_HOME={shlex.quote(str(home.path))}",) if elsewhere else ()
    return (
        "",
        "Read the fingerprint to each hospital over the phone when it accepts its invitation. Next:",
        *first,
        f"    edit {home.config}: set `base` to the folder of the pretrained model",
        "    cloister-coordinator enrol JOIN-REQUEST > invitation    for each hospital's request",
        "    cloister-coordinator plan check PLAN.toml               cost of a plan; then sign it",
        "    cloister-coordinator start                              let hospitals connect",
    )


def renew(home: HomeOption = None, dry_run: DryRunOption = False) -> None:
    """Issue the gateway's and the SuperLink's certificates anew: before they end, or for another address.

    The authority stays, so hospitals need to do nothing while the address is the same. For another address, change
    `address` in coordinator.toml first, and send each hospital a new invitation. A running service takes the new
    certificates when it is started again.

    Example: `cloister-coordinator renew`
    """
    from server.certificates import certificate_findings, renew_certificates

    chosen, config = open_home(home)
    now = current_moment()
    if dry_run:
        stdout().print(findings_table(certificate_findings(chosen, config.address, now)))
        return
    renew_certificates(chosen, config.address, now)
    record(chosen, AdminCommand(command="renew", by=person()))
    stdout().print(findings_table(certificate_findings(chosen, config.address, now)))
    say("A running service takes them when it is started again.")


def verify(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check the audit log: every line's signature, the chain from the first line to the last, and its anchor.

    Example: `cloister-coordinator verify`
    """
    from common.audit import verify_audit

    chosen, _ = open_home(home)
    report = verify_audit(chosen.audit, chosen.audit_anchor, _public(chosen))
    if as_json:
        head = {"number": report.head.number, "hash": report.head.hash}
        print_json(
            {"holds": True, "lines": len(report.entries), "head": head, "events": dict(sorted(report.counts.items()))}
        )
        return
    first, last = report.entries[0].time, report.entries[-1].time
    out, lines = stdout(), counted(len(report.entries), "line")
    out.print(f"the audit log holds: {lines}, from {first} to {last}", soft_wrap=True)
    last_line = f"the last is number {report.head.number}, hash {report.head.hash[:_SHOWN_DIGITS]}…"
    out.print(f"{last_line}; note both elsewhere: they show later that nothing was taken away", soft_wrap=True)
    for kind, count in sorted(report.counts.items()):
        out.print(f"  {count:6d}  {kind}")
    if report.torn_bytes or report.anchor_behind:
        out.print("a crash left its last line unfinished; the next command that writes mends that")
    if report.steps_back:
        out.print(f"the clock was moved back {times(report.steps_back)}", soft_wrap=True)


def _begin_audit(home: CoordinatorHome) -> None:
    log = AuditLog(home.audit, home.audit_anchor, read_identity(home.identity_key))
    log.record(AdminCommand(command="init", by=person()))


def _public(home: CoordinatorHome) -> str:
    return public_name(read_identity(home.identity_key))
