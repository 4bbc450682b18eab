"""How it looks whether the records fit a plan; on this screen, and nowhere else."""

from __future__ import annotations

from client.data_check import Fit
from common.command_line import findings_table, say, stderr
from common.findings import counted

_OURS = (
    "the coordinator is not told so; these counts are exact, and this hospital's:",
    "who asks for other labels must not learn from you which ones occur",
)


def show_fit(fit: Fit) -> None:
    """Tell the person here what of the records does not fit the plan; it is written down nowhere, and never sent."""
    odd = [finding for finding in fit.findings if finding.level != "pass"]
    if odd:
        stderr().print(findings_table(odd))
    say(*fit_in_words(fit))


def fit_in_words(fit: Fit) -> tuple[str, ...]:
    """What the findings come to: how many rows would add nothing, and who learns of it."""
    if not fit.usable:
        whose = f"none of your {counted(fit.rows, 'row')}" if fit.rows else "no row of yours"
        return (f"{whose} would add anything to this plan; its ε would be spent all the same, and", *_OURS)
    if fit.usable < fit.rows:
        unfit = f"{fit.rows - fit.usable:,} of your {counted(fit.rows, 'row')}"
        return (f"{unfit} would add nothing to this plan, which costs the same, and", *_OURS)
    return ("the checks that are marked above failed",) if fit.has_failed else ("the records fit the plan",)
