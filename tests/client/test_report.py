import dataclasses
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

import client.report
from client.report import (
    Check,
    SiteFacts,
    cell,
    downward,
    moment,
    percent,
    site_report,
    size,
    upward,
    visible,
)
from common.audit import AuditEntry
from tests.audit_events import EVENTS

ENTRIES = [AuditEntry(number, f"2026-11-21T15:04:{number:02}.000Z", event) for number, event in enumerate(EVENTS, 1)]


def budget(name="notes"):
    return {
        "dataset": name,
        "unit": "patient",
        "delta": 1e-5,
        "total": 8.0,
        "spent": 2.4561,
        "left": 5.5439,
        "share": 0.31251,
        "studies": [{"plan": name, "share": 0.31251}],
    }


def facts(text="north", **changes):
    full = SiteFacts(
        site=text,
        federation=text,
        coordinator=text,
        made=datetime(2026, 11, 21, 16, tzinfo=UTC),
        entries=ENTRIES,
        budgets=[budget(text)],
        checks=[Check(text, True, text), Check("ledger", False, text)],
    )
    return dataclasses.replace(full, **changes)


VOID = {"meta"}


class Page(HTMLParser):
    """Tags in order with their attributes, the text between them, and whether they close as they open."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [dict(attributes) for name, attributes in self.tags if name == tag]


def skeleton(markdown):
    """What a Markdown reader makes of a page, without its words."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        found.append(token.type)
        found += [child.type for child in token.children or () if not child.type.startswith("text")]
    return found


def test_both_pages_say_what_the_log_says():
    markdown, html = site_report(facts())
    text = " ".join(" ".join(Page(html).text).split())
    for words in (
        "What left north",
        "Dr. Müller",
        "adverse-events (abababab)",
        "masked numbers of a round",
        "nobody at this site has approved the plan yet",
        "an older copy of the ledger was found",
        "2.457",
        "5.543",
        "31.3 %",
        "Do not rely on this page: ledger did not pass verification.",
        "2026-11-21 15:04:10 UTC",
    ):
        assert words in markdown
        assert words in text


def test_nothing_recorded_gives_a_whole_page_too():
    for page in site_report(facts(federation="", coordinator="", entries=[], budgets=[], checks=[])):
        for words in ("none joined", "No plan was seen.", "No message left.", "This site refused nothing."):
            assert words in page
        for words in ("No budget has been set", "Nothing is recorded.", "None was found."):
            assert words in page
        assert "Do not rely" not in page
    Page(page)


def test_the_page_stands_alone_and_can_be_read_without_eyes():
    page = Page(site_report(facts())[1])
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "a", "base"}
    assert ("http-equiv", "Content-Security-Policy") in [pair for _, pairs in page.tags for pair in pairs]
    assert page.of("html") == [{"lang": "en"}]
    assert [name for name in ("main", "h1", "title") if len(page.of(name)) != 1] == []
    assert len(page.of("table")) == len(page.of("caption")) > 8
    assert {cell["scope"] for cell in page.of("th")} == {"row", "col"}
    targets = {attributes["id"] for _, pairs in page.tags if "id" in (attributes := dict(pairs))}
    assert {part["aria-labelledby"] for part in page.of("section")} == targets
    levels = [int(name[1]) for name, _ in page.tags if name in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.fixture(scope="module")
def plain():
    """Tags and skeleton of the page with names that are plain words."""
    markdown, html = site_report(facts("plain"))
    return Page(html).tags, skeleton(markdown)


EVIL = "http:" + "//evil"
HOSTILE = [
    "<script>alert(1)</script>",
    "</td></tr></table><img src=x onerror=alert(1)>",
    "\"' onmouseover='x",
    "{{ 7*7 }}{% raw %}",
    "a|b\n|c\n\n# heading\n---",
    f"[click](javascript:alert(1)) ![x]({EVIL})",
    f"<{EVIL}> www.evil.example {EVIL} a@b.example",
    "*bold* _it_ `code` ~~gone~~ $x$ \\",
    "&lt;b&gt; &#60;",
    "trailing ##",
    "<!-- -->",
    "\u202eevil\u200b\x00\x1b[31m",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_stays_a_name(text, plain):
    markdown, html = site_report(facts(text))
    page = Page(html)
    assert (page.tags, skeleton(markdown)) == plain
    assert visible(text) in "".join(page.text)
    for letter in "\u202e\u200b\x00\x1b":
        assert letter not in markdown + html


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=30).filter(lambda text: text.strip()))
def test_any_name_stays_a_name(plain, text):
    markdown, html = site_report(facts(text))
    assert (Page(html).tags, skeleton(markdown)) == plain


def test_without_its_escape_a_name_would_be_markup(monkeypatch):
    expected = skeleton(site_report(facts("plain"))[0])
    client.report._environment.cache_clear()
    monkeypatch.setattr(client.report, "cell", str)
    markdown, _ = site_report(facts(HOSTILE[4]))
    client.report._environment.cache_clear()
    assert skeleton(markdown) != expected


def test_a_forgotten_value_is_an_error():
    with pytest.raises(UndefinedError):
        site_report(facts(budgets=[{"dataset": "notes"}]))


def test_text_is_shown_so_that_one_sees_it():
    assert visible("a\n b\tc") == "a b c"
    assert visible("x\u202ey\u200bz\x07") == "x�y�z�"
    assert cell("a|b*c:d://e www.f g.h") == r"a\|b\*c:d\://e www\.f g.h"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (5e9, "5.0 GB"),
        (9e18, "9,000,000.0 TB"),
    ],
)
def test_sizes_are_small_numbers(count, words):
    assert size(count) == words


def test_what_was_spent_is_rounded_up_and_what_is_left_down():
    assert (upward(1.0001), upward(1.0), downward(1.9999), percent(0.3001), percent(1.0)) == (
        "1.001",
        "1.000",
        "1.999",
        "30.1 %",
        "100.0 %",
    )
    assert moment("2026-11-21T15:04:05.678Z") == "2026-11-21 15:04:05 UTC"
