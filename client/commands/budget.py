"""The privacy budget, as a picture and in figures."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from client.commands.options import HomeOption, JsonOption, existing_home
from common.command_line import say, stdout

if TYPE_CHECKING:
    from client.home import SiteHome
    from client.review import Review
    from client.spending import Spending

_CELLS = 60
_MANY = 10.0
_PAID, _NEXT, _FREE = ("█", "▓"), "▒", "░"
_COLOURS = ("cyan", "magenta", "blue", "green")


def budget(
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="Show what this plan would cost: its file, or the beginning of its digest; left out: all that wait.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was spent of the privacy budget, on what, what is left, and what the next plan would cost.

    A plan's full cost is set aside before its first round and never given back. The shares add up; ε has a part that
    only the first plan pays, so that it starts well above zero.

    Example: `cloister-site budget` · `cloister-site budget --plan sepsis.plan`
    """
    found = _look(existing_home(home), plan)
    if as_json:
        print(json.dumps([_as_json(one) for one in found], indent=2, ensure_ascii=False))
        return
    for one in found:
        _show(one, stdout())
    if not found:
        say("there is no budget: give the data set one under [budget] in site.toml")


def _look(site: SiteHome, plan: str | None) -> tuple[Spending, ...]:
    from client.books import budgets_of, look_at_ledger
    from client.config import load_site_config
    from client.keys import site_identity
    from client.review import open_desk
    from client.spending import spending

    if plan is None and not site.coordinator.exists():
        config = load_site_config(site.config)
        return spending(look_at_ledger(site, site_identity(site), budgets_of(config)))
    desk = open_desk(site)
    if plan is not None:
        return spending(desk.books, (desk.review(desk.take_in(plan)),))
    books = desk.books
    open_plans = (one for one in desk.plans() if one.is_valid_at(books.latest_time))
    waiting = (desk.review(one) for one in open_plans if one.digest not in books.state.closed)
    return spending(books, tuple(one for one in waiting if _may_come(one)))


def _may_come(review: Review) -> bool:
    """Whether nothing but an approval, or room in the budget, is missing."""
    return not set(review.verdict.codes) - {"not-approved", "over-budget"}


def _show(one: Spending, console: Console) -> None:
    from client.report import downward, percent, upward

    balance = one.balance
    console.print(
        f"[bold]{escape(balance.dataset)}[/bold], each {balance.unit}: ε {balance.total:g} in all, at δ = "
        f"{balance.delta:g}"
    )
    console.print(_bar(one))
    share = percent(balance.share) if math.isfinite(balance.share) else "all"
    console.print(f"spent ε {upward(balance.spent)}   left ε {downward(balance.left)}   {share} used")
    for number, expense in enumerate(one.expenses):
        rounds = f"{expense.last_round:,} of {expense.rounds:,} rounds charged" if expense.digest else ""
        mark = _mark(number)
        line = Text.assemble(
            ("  " + mark[0], mark[1]),
            f" {expense.plan:<24} {percent(expense.share) if math.isfinite(expense.share) else 'all':>8}  ",
            (f"{expense.digest[:12]}  {expense.day}  {rounds}", "dim"),
        )
        console.print(line)
    for review in one.next:
        _show_next(review, console)
    console.print()


def _show_next(review: Review, console: Console) -> None:
    from client.report import downward, percent

    quote, after = review.quote, review.after
    if quote is None:
        return
    left = f"then ε {downward(after.left)} is left" if quote.fits and after is not None else "does not fit"
    console.print(
        Text.assemble(
            (f"  {_NEXT}", "yellow"),
            f" {review.signed.plan.name:<24} {percent(quote.share) if quote.share < _MANY else 'too much':>8}  ",
            (f"{review.signed.digest[:12]}  if it runs next: {left}", "dim" if quote.fits else "red"),
        )
    )


def _bar(one: Spending) -> Text:
    """One cell a sixtieth of the budget; whatever was spent shows, however little."""
    bar, room = Text(), _CELLS
    for number, expense in enumerate(one.expenses):
        cells = min(room, _cells(expense.share))
        bar.append(_mark(number)[0] * cells, _mark(number)[1])
        room -= cells
    for review in one.next[:1]:
        cells = min(room, _cells(review.quote.share if review.quote is not None else 0.0))
        bar.append(_NEXT * cells, "yellow")
        room -= cells
    bar.append(_FREE * room, "dim")
    return bar


def _mark(number: int) -> tuple[str, str]:
    return _PAID[number % len(_PAID)], _COLOURS[number % len(_COLOURS)]


def _cells(share: float) -> int:
    return min(_CELLS, math.ceil(share * _CELLS)) if math.isfinite(share) else _CELLS


def _as_json(one: Spending) -> dict[str, Any]:
    balance = one.balance
    return {
        "dataset": balance.dataset,
        "unit": balance.unit,
        "delta": balance.delta,
        "order": balance.order,
        "epsilon_total": balance.total,
        "epsilon_spent": balance.spent,
        "epsilon_left": balance.left,
        "share_used": _number(balance.share),
        "spent_on": [{**vars(expense), "share": _number(expense.share)} for expense in one.expenses],
        "next": [_next_as_json(review) for review in one.next],
    }


def _next_as_json(review: Review) -> dict[str, Any]:
    quote, after = review.quote, review.after
    return {
        "plan": review.signed.plan.name,
        "digest": review.signed.digest,
        "share": _number(quote.share) if quote is not None else None,
        "fits": quote is not None and quote.fits,
        "epsilon_left_then": _number(after.left) if after is not None else None,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
