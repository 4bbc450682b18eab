"""No way around what was charged: not another name, not a clock that is moved back, not a recovery."""

from dataclasses import replace
from datetime import timedelta

import pytest

from common.errors import ConfigError
from tests.client.ledger_site import BUDGET, OTHER_PLAN, PLAN, Site, reserve


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site").create()


@pytest.fixture
def ledger(site):
    with site.open() as ledger:
        yield ledger


def test_a_new_name_for_what_was_charged_opens_no_second_budget(site, ledger):
    reserve(ledger)
    ledger.close()
    renamed = replace(BUDGET, dataset="records-2026")
    before = site.path.read_bytes()
    with pytest.raises(ConfigError, match="calls the records 'records-2026', and the ledger has charged 'records'"):
        site.open(renamed)
    assert site.path.read_bytes() == before
    site.recover()
    with pytest.raises(ConfigError, match="has charged 'records'"):
        site.open(renamed)
    with site.open(BUDGET) as back:
        assert back.balance("records", "patient").left == 0


def test_before_anything_was_charged_a_name_may_change(site, ledger):
    ledger.close()
    with site.open(replace(BUDGET, dataset="images")) as other:
        reserve(other, dataset="images")
    with pytest.raises(ConfigError, match="has charged 'images'"):
        site.open()


def test_what_another_book_has_seen_counts_as_time_that_passed(site, ledger):
    later = site.clock.now + timedelta(days=3)
    ledger.has_seen(later)
    ledger.has_seen(later - timedelta(days=1))
    assert ledger.latest_time == later
    site.clock.move(days=4)
    assert ledger.latest_time == site.clock.now


def test_a_plan_from_before_a_recovery_is_closed(site, ledger):
    reserve(ledger)
    assert not ledger.is_closed(PLAN)
    ledger.recover("a test")
    assert ledger.is_closed(PLAN)
    assert not ledger.is_closed(OTHER_PLAN)
