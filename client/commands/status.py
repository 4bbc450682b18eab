"""What this hospital's node is doing now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from client.commands.options import HomeOption, JsonOption, existing_home
from common.command_line import stdout

if TYPE_CHECKING:
    from client.approvals import ApprovalState
    from client.home import SiteHome
    from client.status import NodeStatus

_COLOURS = {"waiting": "green", "working": "green", "connecting": "yellow", "paused": "yellow", "failed": "red"}
_STATES = {
    "approved": "[green]approved[/green]",
    "missing": "[yellow]not approved[/yellow]",
    "damaged": "[red]approval damaged or edited[/red]: the node does not start with it",
}


@dataclass(frozen=True)
class Glance:
    """What a look at the home gives, without opening a book.

    Attributes:
        home: Where.
        site: Its name.
        process: Of the node; None where none runs.
        paused: Whether a person has paused it.
        status: What the node said last.
        federation: Its name; empty before an invitation was accepted.
        accepted: When that was, in UTC, as `2026-11-21T15:04:05Z`; empty before.
        address: Of the coordinator.
        coordinator: Its fingerprint.
        plans: Name, digest and whether it is approved, of each plan that was offered or reviewed; damaged is an
            approval that somebody has changed.
    """

    home: str
    site: str
    process: int | None
    paused: bool
    status: NodeStatus | None
    federation: str
    accepted: str
    address: str
    coordinator: str
    plans: tuple[tuple[str, str, ApprovalState], ...]

    @property
    def doing(self) -> str:
        """In one word; a node that is gone does nothing, whatever it said last."""
        if self.process is None:
            has_failed = self.status is not None and self.status.doing == "failed"
            return "failed" if has_failed and not self.failure_is_over else "stopped"
        return self.status.doing if self.status is not None else "connecting"

    @property
    def failure_is_over(self) -> bool:
        """Whether the last node failed before the invitation was accepted that holds now; of one second, it did not."""
        return self.status is not None and self.status.doing == "failed" and self.status.since < self.accepted

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        said = None if self.status is None else self.status.model_dump(mode="json")
        plans = [
            {"name": name, "digest": digest, "approved": state == "approved", "approval": state}
            for name, digest, state in self.plans
        ]
        return {**vars(self), "doing": self.doing, "status": said, "plans": plans}


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what the node is doing, for whom, and which plans are here.

    Reads small files only, and answers at once. What was spent is in `cloister-site budget`, what a plan asks in
    `cloister-site review`.

    Example: `cloister-site status` · for a monitor: `cloister-site status --json`
    """
    glance = look(existing_home(home))
    if as_json:
        print(json.dumps(glance.as_json(), indent=2, ensure_ascii=False))
        return
    stdout().print(_table(glance))


def look(site: SiteHome) -> Glance:
    """Gather what `status` shows."""
    from client.enrolment import read_pinned
    from client.node_process import running_node
    from client.status import read_status
    from common.config_file import read_toml
    from common.enrolment import fingerprint
    from common.moments import moment_text

    pinned = read_pinned(site) if site.coordinator.exists() else None
    invitation = pinned.invitation if pinned else None
    return Glance(
        home=str(site.path),
        site=str(read_toml(site.config).get("name", "?")),
        process=running_node(site),
        paused=site.paused.exists(),
        status=read_status(site.status),
        federation=invitation.federation_name if invitation else "",
        accepted=moment_text(pinned.accepted) if pinned else "",
        address=invitation.address if invitation else "",
        coordinator=fingerprint(invitation.coordinator) if invitation else "",
        plans=_plans(site),
    )


def _plans(site: SiteHome) -> tuple[tuple[str, str, ApprovalState], ...]:
    from client.approvals import approval_state
    from common.signed_plan import SIGNED_PLAN_LIMIT_BYTES, read_signed_plan

    found = []
    for path in site.plans.glob("*.json"):
        with path.open("rb") as stream:
            signed = read_signed_plan(stream.read(SIGNED_PLAN_LIMIT_BYTES + 1))
        found.append((signed.issued, signed.plan.name, signed.digest, approval_state(site, signed.digest)))
    return tuple((name, digest, state) for _, name, digest, state in sorted(found, reverse=True))


def _table(glance: Glance) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row("site", f"[bold]{escape(glance.site)}[/bold]  [dim]{escape(glance.home)}[/dim]")
    table.add_row("node", _node(glance))
    if glance.federation:
        table.add_row("coordinator", f"{escape(glance.federation)} at {glance.address}")
        table.add_row("", f"[dim]{glance.coordinator}[/dim]")
    else:
        table.add_row("coordinator", "none accepted yet: `cloister-site accept INVITATION`")
    for name, digest, state in glance.plans:
        table.add_row("plan", f"{escape(name)}  {digest[:12]}  {_STATES[state]}{_round(glance, digest)}")
        if state == "damaged":
            table.add_row(
                "", f"`cloister-site withdraw {digest[:12]}` removes the approval; then approve the plan anew"
            )
    return table


def _node(glance: Glance) -> str:
    doing = glance.doing
    said = glance.status
    text = f"[{_COLOURS.get(doing, 'yellow')}]{doing}[/{_COLOURS.get(doing, 'yellow')}]"
    if glance.process is None:
        if said is not None and said.doing not in {"stopped", "failed"}:
            text += f"; the last one ended without a word, {said.doing} since {_clock(said.since)}"
        elif said is not None and glance.failure_is_over:
            text += f"; it failed at {_clock(said.since)}, before the invitation was accepted: {escape(said.detail)}"
        elif said is not None:
            text += f" since {_clock(said.since)}: {escape(said.detail)}"
        return text + ("; [yellow]paused[/yellow]" if glance.paused else "")
    detail = f": {escape(said.detail)}" if said is not None and said.detail else ""
    since = f" since {_clock(said.since)}" if said is not None else ""
    pausing = "; about to pause" if glance.paused and doing != "paused" else ""
    return f"{text}{since}{detail}  [dim]process {glance.process}[/dim]{pausing}"


def _round(glance: Glance, digest: str) -> str:
    said = glance.status
    here = said is not None and said.plan == digest and said.round_number and glance.process is not None
    return f"  in round {said.round_number}" if said is not None and here else ""


def _clock(since: str) -> str:
    return f"{since[:10]} {since[11:16]} UTC"
