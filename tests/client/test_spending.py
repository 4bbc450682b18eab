import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from client.books import LedgerOutlook
from client.spending import spending
from tests.client.ledger_site import OTHER_PLAN, PLAN, RUN, Site, reserve


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path).create()


def outlook(site: Site) -> LedgerOutlook:
    view = site.read()
    return LedgerOutlook(view, view.state, datetime.now(UTC))


def test_shares_add_up_to_what_is_used(site: Site) -> None:
    with site.open() as ledger:
        reserve(ledger, PLAN, plan_name="first")
        reserve(ledger, OTHER_PLAN, replace(RUN, steps=100), plan_name="second")
        ledger.commit(PLAN, 3, "1" * 64)
    (found,) = spending(outlook(site))
    assert [(one.plan, one.last_round) for one in found.expenses] == [("first", 3), ("second", 0)]
    assert math.isclose(sum(one.share for one in found.expenses), found.balance.share)
    table = found.table
    assert math.isclose(sum(study["share"] for study in table["studies"]), table["share"])
    assert (table["total"], table["spent"]) == (5.0, found.balance.spent)


def test_after_a_recovery_what_was_before_is_one_expense_of_everything(site: Site) -> None:
    with site.open() as ledger:
        reserve(ledger, PLAN, plan_name="first")
        ledger.recover("the disk was replaced")
    (found,) = spending(outlook(site))
    assert [(one.plan, one.digest) for one in found.expenses] == [("before a recovery", "")]
    assert math.isclose(found.expenses[0].share, 1.0)
    assert math.isclose(found.balance.left, 0.0, abs_tol=1e-9)


def test_a_raised_budget_after_a_recovery_adds_up_too(site: Site) -> None:
    with site.open() as ledger:
        ledger.recover("the disk was replaced")
    with site.open(replace_budget(site, 9.0)) as ledger:
        reserve(ledger, OTHER_PLAN, replace(RUN, steps=100), plan_name="second")
    (found,) = spending(outlook(site))
    assert [one.plan for one in found.expenses] == ["before a recovery", "second"]
    assert math.isclose(sum(one.share for one in found.expenses), found.balance.share)


def replace_budget(site: Site, epsilon: float):
    from tests.client.ledger_site import BUDGET

    return replace(BUDGET, epsilon=epsilon)


def test_an_empty_ledger_has_no_spending(site: Site) -> None:
    assert spending(outlook(site)) == ()
