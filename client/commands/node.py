"""Start, stop, pause, resume: the node as a process."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import structlog
import typer

from client.commands.options import DryRunOption, HomeOption, existing_home
from common.command_line import person, say


def start(
    home: HomeOption = None,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            min=0.0,
            help="Give up (exit 4) when the coordinator cannot be reached for so long at the start; left out: never. "
            "A paused site waits for `resume` first, for as long as that takes.",
            show_default=False,
        ),
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log as JSON, one line an event, on stderr.")] = False,
) -> None:
    """Run this hospital's node until it is stopped.

    It opens connections to the coordinator's one address and listens nowhere. Ctrl-C, SIGTERM or `cloister-site stop`
    end it within five seconds, whatever it is doing; `cloister-site pause` closes everything until `resume`. It may be
    killed at any time: nothing is charged twice, and nothing that was charged is forgotten.

    Example: `cloister-site start` · as a service: `cloister-site start --json-logs`
    """
    site = existing_home(home)
    _log_to_stderr(as_json=json_logs)
    # Flower is slow to import, and a stop must work meanwhile.
    from client.interrupts import Interrupts, StopRequestedError, leave

    try:
        with Interrupts(None).raised():
            from client.app import HEARTBEAT_SECONDS
            from client.link import open_link
            from client.running import NodeRun

            NodeRun(site, open_link, HEARTBEAT_SECONDS / 2, wait).run()
    except StopRequestedError:  # before the node began, or once more while it ended
        pass
    structlog.get_logger().info("stopped")
    leave(0)


def stop(home: HomeOption = None) -> None:
    """Stop the node, and wait until its process is gone: five seconds at most.

    What was spent stays spent, what was approved stays approved; `cloister-site start` goes on where it was.

    Example: `cloister-site stop`
    """
    from client.node_process import stop_node
    from client.site_audit import note
    from common.audit_events import AdminCommand

    site = existing_home(home)
    ended = stop_node(site)
    if ended is None:
        say("no node was running")
        return
    note(site, AdminCommand(command="stop", by=person()))
    say(f"the node (process {ended}) has stopped")


def pause(home: HomeOption = None, dry_run: DryRunOption = False) -> None:
    """Have the node close its files and its connection, and wait for `resume`.

    The pause outlasts a stop and a restart of the machine. Rounds go on without this hospital as far as the plan
    tolerates that.

    Example: `cloister-site pause`
    """
    from client.node_process import pause_node, running_node
    from client.site_audit import note
    from common.audit_events import Paused

    site = existing_home(home)
    if dry_run:
        say("would pause the node" if running_node(site) is not None else "would let the next start be a paused one")
        return
    if pause_node(site):
        note(site, Paused(by=person()))
    is_running = running_node(site) is not None
    say("the node is paused" if is_running else "no node is running; the next one starts paused")
    say("`cloister-site resume` ends the pause")


def resume(home: HomeOption = None, dry_run: DryRunOption = False) -> None:
    """End a pause: a node that runs opens everything again and connects.

    Example: `cloister-site resume`
    """
    from client.node_process import resume_node, running_node
    from client.site_audit import note
    from common.audit_events import Resumed

    site = existing_home(home)
    if dry_run:
        say("would end the pause" if site.paused.exists() else "there is no pause to end")
        return
    resume_node(site)
    note(site, Resumed(by=person()))
    is_running = running_node(site) is not None
    say("the pause is over" + ("" if is_running else "; no node is running: `cloister-site start`"))


def _log_to_stderr(*, as_json: bool) -> None:
    """Lines for people, in colour on a terminal; or one JSON object a line."""
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    people = (
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=colours),
    )
    machines = (structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer())
    structlog.configure(
        processors=[structlog.processors.add_log_level, *(machines if as_json else people)],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
