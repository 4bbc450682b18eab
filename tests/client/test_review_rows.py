import typing
from pathlib import Path

import pytest

from client.config import SiteConfig
from client.policy import Reason
from client.review import open_desk
from client.review_rows import limit_rows
from common.reasons import PolicyCode
from tests.site_commands import Play

CODES = frozenset(typing.get_args(PolicyCode))


@pytest.fixture
def joined(tmp_path: Path) -> Play:
    return Play(tmp_path).join()


def test_together_the_lines_stand_for_every_limit_once(joined: Play) -> None:
    desk = open_desk(joined.site)
    rows = limit_rows(desk.review(joined.sign()[0]), desk.config)
    codes = [code for row in rows for code in row.codes]
    assert sorted(codes) == sorted(CODES - {"not-approved"})
    assert len({row.what for row in rows}) == len(rows)


@pytest.mark.parametrize("code", sorted(CODES - {"not-approved"}))
def test_a_broken_limit_marks_its_line_alone(joined: Play, code: PolicyCode) -> None:
    from dataclasses import replace

    desk = open_desk(joined.site)
    review = desk.review(joined.sign()[0])
    reason = Reason(code, "rule", "asked", "limit", "hint")
    broken = replace(review, verdict=replace(review.verdict, reasons=(reason,)))
    marked = [row for row in limit_rows(broken, desk.config) if row.broken]
    assert [code in row.codes for row in marked] == [True]


def test_plans_without_masks_and_with_other_limits_can_be_shown(joined: Play) -> None:
    desk = open_desk(joined.site)
    signed, _ = joined.sign(mode="per-site", secure_aggregation={"masked": False}, adapter={"method": "head"})
    values = desk.config.model_dump()
    values["policy"] |= {"bases": {"tiny": "0" * 64}, "most_trained_values": 9, "coordinators": ("0" * 64,)}
    rows = {row.what: row for row in limit_rows(desk.review(signed), SiteConfig.model_validate(values))}
    assert rows["threshold t"].asked == rows["honest share"].asked == rows["in the modules"].asked == "–"
    assert rows["base model"].limit == "tiny"
    assert rows["trained values"].limit == "at most 9"
    assert rows["readable in the sum only"].broken
