"""One page for people: what left this hospital, who agreed to it, and what it cost; as Markdown and as HTML."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from client.report_tables import CLASS_WORDS, tables
from common.audit import AuditEntry
from common.chain import written_time


@dataclass(frozen=True)
class Check:
    """One thing that was verified before the page was made.

    Attributes:
        what: As "audit log".
        holds: Whether it is as it should be, as far as was looked.
        finding: One sentence.
        looked: Whether it was looked at.
    """

    what: str
    holds: bool
    finding: str
    looked: bool = True

    @property
    def result(self) -> str:
        """For a table."""
        return "not looked at" if not self.looked else "holds" if self.holds else "DOES NOT HOLD"


class StudyShare(TypedDict):
    """What one study took of a budget; `share` is from 0 to 1, and shares add up."""

    plan: str
    share: float


class BudgetTable(TypedDict):
    """A privacy budget in ε at `delta`; `share` is the part that is used, from 0 to 1."""

    dataset: str
    unit: str
    delta: float
    total: float
    spent: float
    left: float
    share: float
    studies: Sequence[StudyShare]


@dataclass(frozen=True)
class SiteFacts:
    """What the page is made from.

    Attributes:
        site: Name of this site.
        federation: Name of the federation; empty where the site has joined none.
        coordinator: Fingerprint of the pinned coordinator; empty likewise.
        made: Moment of the page, in UTC.
        entries: The audit log, in order; as far as it could be read, where a check does not hold.
        budgets: One table for each data set and unit.
        checks: What was verified.
    """

    site: str
    federation: str
    coordinator: str
    made: datetime
    entries: Sequence[AuditEntry]
    budgets: Sequence[BudgetTable]
    checks: Sequence[Check]


def site_report(facts: SiteFacts) -> tuple[str, str]:
    """The page, as Markdown and as HTML.

    Guarantees:
        Both show every message out of the log in a count, and every byte of it in a sum. Names from elsewhere are shown
        as text: they cannot end a table cell, start markup, a link or a script, or hide letters. The HTML is one file
        without scripts, and fetches nothing.

    Args:
        facts: Log, budgets and what was verified.
    """
    values = {"facts": facts, "log": tables(facts.entries), "classes": CLASS_WORDS, "made": written_time(facts.made)}
    markdown = _environment(autoescape=False).get_template("report.md.jinja").render(values)
    html = _environment(autoescape=True).get_template("report.html.jinja").render(values)
    return markdown, html


@functools.cache
def _environment(*, autoescape: bool) -> Environment:
    # `finalize` sees every value on its way into the page, so that no place in a template can forget to escape.
    environment = Environment(
        loader=PackageLoader("client", "templates"),
        autoescape=autoescape,  # noqa: S701 - off for Markdown alone, where `finalize` escapes
        finalize=visible if autoescape else cell,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count="{:,}".format, size=size, moment=moment, upward=upward, downward=downward, percent=percent
    )
    return environment


def visible(value: Any) -> str:  # noqa: ANN401 - whatever stands in a template
    """Text on one line in which every letter can be seen; what cannot be printed, or turns the line around, is a �."""
    if isinstance(value, Markup):  # a part of the page, made of values that have been through here
        return value
    return "".join(letter if letter.isprintable() else "�" for letter in " ".join(str(value).split()))


_MARKUP = re.compile(r"[\\`*_<>\[\]|&~@#$]|:(?=/)|(?<=www)\.", re.IGNORECASE)


def cell(value: Any) -> str:  # noqa: ANN401 - whatever stands in a template
    """The same for Markdown: nothing in it ends a cell or is taken for markup or a link."""
    return _MARKUP.sub(r"\\\g<0>", visible(value))


def moment(time: str) -> str:
    """`2026-11-21T15:04:05.678Z` as a person reads it."""
    return f"{time[:10]} {time[11:19]} UTC"


def size(count: int) -> str:
    """Bytes in the unit in which they are a small number."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def upward(value: float) -> str:
    """What was spent, with three decimals, never rounded down."""
    return f"{math.ceil(value * 1000) / 1000:.3f}"


def downward(value: float) -> str:
    """What is left, with three decimals, never rounded up."""
    return f"{math.floor(value * 1000) / 1000:.3f}"


def percent(share: float) -> str:
    """A share that was used, with one decimal, never rounded down."""
    return f"{math.ceil(share * 1000) / 10:.1f} %"
