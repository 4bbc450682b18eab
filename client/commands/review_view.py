"""How a review looks, on a screen and as JSON."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.config import SiteConfig
from client.report import downward, percent, upward, visible
from client.review import Review
from client.review_rows import limit_rows
from common.reasons import in_words

_MANY = 10.0


def state_in_words(review: Review) -> str:
    """Where a plan stands, in a coloured word and, where it is refused, why."""
    verdict = review.verdict
    if verdict.state == "refused":
        codes = [code for code in verdict.codes if code != "not-approved"]
        more = f", and {len(codes) - 1} more" if len(codes) > 1 else ""
        return f"[red]refused[/red]: {in_words(codes[0])}{more}"
    if verdict.state == "waiting":
        return "[yellow]waits for an approval[/yellow]"
    if review.last_round:
        done = review.last_round >= review.signed.plan.rounds
        return "[green]all rounds charged[/green]" if done else "[green]under way[/green]"
    return "[green]accepted[/green], paid for" if review.reserved else "[green]accepted[/green]"


def cost_in_words(review: Review) -> str:
    """What a plan costs, in one clause; rounded against the reader's hopes."""
    tight = "ε unknown" if review.epsilon is None else f"ε = {upward(review.epsilon)}"
    run = f"the run costs {tight} at δ = {review.signed.plan.privacy.delta:g}"
    if review.quote is None or review.before is None or review.after is None:
        return f"{run}; there is no budget that it could be taken from"
    if not math.isfinite(review.quote.share):
        return f"{run}; no budget holds it"
    share = f"{share_in_words(review.quote.share)} the budget"
    if review.reserved:
        return f"{run}; {share} was set aside for it"
    if not review.quote.fits:
        return f"{run}; {share}, of which {_left(review.before.share)} is left"
    return f"{run}; {share}, which leaves {_left(review.after.share)} of it"


def show_terms(review: Review, config: SiteConfig, console: Console) -> None:
    """What a plan asks beside the limits, and its cost: a page for the person who decides."""
    signed = review.signed
    console.print(f"[bold]{escape(signed.plan.name)}[/bold]  {signed.digest}", soft_wrap=True)
    console.print()
    console.print(_limits(review, config))
    console.print()
    console.print(_costs(review))
    console.print()


def _limits(review: Review, config: SiteConfig) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("the plan asks", overflow="fold")
    table.add_column("this site's limit", overflow="fold")
    for row in limit_rows(review, config):
        mark = "[red]✗[/red]" if row.broken else "[green]✓[/green]"
        asked = escape(visible(row.asked))
        table.add_row(mark, row.what, f"[red]{asked}[/red]" if row.broken else asked, escape(visible(row.limit)))
    return table


def _costs(review: Review) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("cost", cost_in_words(review))
    before, after = review.before, review.after
    if before is not None and after is not None:
        about = f"data set {before.dataset}, unit {before.unit}, δ = {before.delta:g}"
        table.add_row("budget", f"ε {before.total:g} in total for {about}")
        table.add_row("spent now", f"ε {upward(before.spent)}, so that {downward(before.left)} is left")
        if not review.reserved and review.quote is not None and review.quote.fits:
            table.add_row("spent then", f"ε {upward(after.spent)}, so that {downward(after.left)} is left")
    return table


def show_verdict(review: Review, console: Console) -> None:
    """Where the plan stands, and what the person can do now; the end of the page."""
    digest = review.signed.digest
    reasons = [reason for reason in review.verdict.reasons if reason.code != "not-approved"]
    if review.verdict.state == "refused":
        count = len(reasons) + review.verdict.over_budget
        console.print(f"[red]refused[/red], for {count} reason{'s' if count != 1 else ''}:")
        for reason in reasons:
            console.print(f"  - {escape(visible(str(reason)))}", soft_wrap=True)
            console.print(f"    [dim]hint: {escape(visible(reason.hint))}[/dim]", soft_wrap=True)
        if review.verdict.over_budget:
            console.print(f"  - {in_words('over-budget')}", soft_wrap=True)
            console.print("    [dim]hint: ask for fewer rounds or more noise, or raise \\[budget] on purpose[/dim]")
    elif review.verdict.state == "waiting":
        console.print("[yellow]fits every limit[/yellow], and waits for a person here:")
        console.print(f"  cloister-site approve {digest}", soft_wrap=True)
    elif review.approval is not None:
        yes = review.approval
        said = f"approved by {escape(yes.by)}, {yes.approved:%Y-%m-%d %H:%M} UTC, until {yes.valid_until:%Y-%m-%d}"
        console.print(f"[green]accepted[/green]: {said}")
    else:
        console.print("[green]accepted[/green]: fits every limit, and this policy asks for no approval")


def review_json(review: Review, config: SiteConfig) -> dict[str, Any]:
    """A review for programs; what has no number is null."""
    quote, before, after = review.quote, review.before, review.after
    return {
        "digest": review.signed.digest,
        "name": review.signed.plan.name,
        "state": review.verdict.state,
        "codes": list(review.verdict.codes),
        "reasons": [vars(reason) for reason in review.verdict.reasons],
        "over_budget": review.verdict.over_budget,
        "epsilon": _number(review.epsilon),
        "budget_share": _number(quote.share if quote else None),
        "epsilon_left_now": _number(before.left if before else None),
        "epsilon_left_then": _number(after.left if after else None),
        "reserved": review.reserved,
        "last_round": review.last_round,
        "approved_until": review.approval.valid_until.isoformat() if review.approval else None,
        "approved_by": review.approval.by if review.approval else None,
        "valid_until": review.signed.valid_until.isoformat(),
        "limits": [vars(row) for row in limit_rows(review, config)],
        "plan": review.signed.plan.model_dump(mode="json"),
    }


def share_in_words(share: float) -> str:
    """A part of a budget as a percentage, or a multiple of it where it is one."""
    if not math.isfinite(share):
        return "more than"
    return f"{percent(share)} of" if share < _MANY else f"{share:,.0f} times"


def _left(share: float) -> str:
    """What is left of a budget of which this share is used, never rounded up."""
    return f"{math.floor(max(0.0, 1 - share) * 1000) / 10:.1f} %"


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
