"""`cloister-coordinator`: enrol hospitals, agree on a plan, run it, and get an adapter."""

from __future__ import annotations

from collections.abc import Callable

from common.command_line import command_app, outer_door
from server.commands import doctor, home, plans, runs, service, sites

app = command_app(
    "Coordinate a private fine-tune across hospitals.\n\n"
    "From nothing to an adapter: `init`, then `enrol` each hospital; `plan check` shows what a plan costs, and "
    "signs it; `start` lets hospitals connect; `run` trains; `report` and `export` give the result.\n\n"
    "Data go to stdout, progress to stderr. Exit codes: 0 ok, 1 failed, 2 usage, 3 config, 4 connection, "
    "5 timeout, 10 refused by a hospital's policy, 11 budget, 12 not approved, 13 integrity, 14 rollback, "
    "15 secure aggregation aborted, 16 too few sites, 75 try again later."
)
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Federation": (home.init, sites.enrol, sites.withdraw, sites.sites),
    "Study": (service.start, runs.run, runs.stop, service.status, runs.report, runs.export),
    "Upkeep": (doctor.doctor, home.renew, home.verify),
}
app.add_typer(plans.plans, name="plan", rich_help_panel="Study")
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)


def main() -> None:
    """The outer door: every error leaves as one sentence and an exit code."""
    outer_door(app)
