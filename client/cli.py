"""`cloister-site`: take part in a federation without trusting anyone."""

from __future__ import annotations

from collections.abc import Callable

from client.commands import books, budget, data, doctor, enrol, node, plans, status
from common.command_line import command_app, outer_door

app = command_app(
    "A hospital's side of private federated fine-tuning: see a plan, hold it against your own limits, approve it, "
    "watch what leaves, stop at any time.\n\n"
    "Results go to stdout, progress and questions to stderr. Nothing that a coordinator sends can change a setting "
    "of this hospital.\n\n"
    "From nothing: `init`, `request`, `accept`, `data check`, `review`, `approve`, `start`.\n\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 config or data, 4 connection or authentication, 5 timeout, "
    "10 refused by policy, 11 budget, 12 not approved, 13 integrity, 14 rollback detected, 75 try again later."
)


def _add(panel: str, *commands: Callable[..., None]) -> None:
    for command in commands:
        app.command(command.__name__, rich_help_panel=panel)(command)


_add("Join a federation", enrol.init, enrol.request, enrol.accept)
_add("Decide about a plan", plans.review, plans.approve, plans.withdraw, plans.plans)
_add("Run the node", node.start, node.stop, node.pause, node.resume)
_add("Look and check", status.status, doctor.doctor, budget.budget, books.report, books.verify, books.recover)
app.add_typer(data.app, name="data", rich_help_panel="Join a federation")


def main() -> None:
    """The outer door: every error leaves as one sentence and an exit code."""
    outer_door(app)


if __name__ == "__main__":
    main()
