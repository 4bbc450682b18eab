from dataclasses import replace
from pathlib import Path

import pytest

from client.books import begin_books, budgets_of, look_at_ledger
from client.config import load_site_config
from client.home import SiteHome
from client.initialise import initialise
from client.keys import site_identity
from client.ledger.anchor import host_identifier
from client.ledger.ledger import open_ledger
from client.ledger.recovery import recover_ledger
from client.ledger.state import Budget
from client.site_template import site_toml
from common.errors import ConfigError, IntegrityError
from tests.client.ledger_site import COORDINATOR, PLAN, ROUNDS, RUN

BUDGET = Budget("records", "patient", 5.0, 1e-5)


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    home = SiteHome(tmp_path / "site")
    initialise(home, site_toml("north"), lambda draft: begin_books(draft, "mary"))
    return home


def opened(home: SiteHome, budget: Budget = BUDGET):
    host = host_identifier(home.keys)
    return open_ledger(home.ledger, home.ledger_anchor, site_identity(home), (budget,), host)


def look(home: SiteHome, budget: Budget = BUDGET):
    return look_at_ledger(home, site_identity(home), (budget,))


def test_books_are_begun_once(home: SiteHome) -> None:
    with opened(home):
        pass
    with pytest.raises(IntegrityError):
        begin_books(home, "mary")


def test_a_look_writes_nothing_and_shows_what_opening_would(home: SiteHome) -> None:
    before = home.ledger.read_bytes(), home.ledger_anchor.read_bytes()
    seen = look(home)
    assert (home.ledger.read_bytes(), home.ledger_anchor.read_bytes()) == before
    with opened(home) as ledger:
        assert seen.balances() == ledger.balances()
        assert seen.quote("records", RUN) == ledger.quote("records", RUN)
        assert look(home).balances() == ledger.balances()


def test_a_look_follows_site_toml_before_the_ledger_does(home: SiteHome) -> None:
    with opened(home) as ledger:
        ledger.reserve(PLAN, "study", COORDINATOR, "records", RUN, ROUNDS)
        before = ledger.balance("records", "patient")
    (raised,) = look(home, replace(BUDGET, epsilon=7.0)).balances()
    assert (raised.total, raised.spent, raised.order) == (7.0, before.spent, before.order)
    with pytest.raises(ConfigError, match="order"):
        look(home, replace(BUDGET, order=before.order + 1))


def test_a_reservation_is_seen_until_a_recovery(home: SiteHome) -> None:
    with opened(home) as ledger:
        made = ledger.reserve(PLAN, "study", COORDINATOR, "records", RUN, ROUNDS)
        assert look(home).reservation(PLAN) == made
        assert look(home).latest_time >= made.time
    host = host_identifier(home.keys)
    recover_ledger(home.ledger, home.ledger_anchor, site_identity(home), host, "the disk was replaced")
    seen = look(home)
    assert seen.reservation(PLAN) is None
    assert seen.balances()[0].left == 0
    assert not seen.quote("records", RUN).fits


def test_a_new_budget_after_a_recovery_has_nothing(home: SiteHome) -> None:
    host = host_identifier(home.keys)
    recover_ledger(home.ledger, home.ledger_anchor, site_identity(home), host, "the disk was replaced")
    assert look(home).balances()[0].left == 0


def test_budgets_are_those_of_site_toml(home: SiteHome) -> None:
    home.config.write_text(site_toml("north", dataset="icu") + "\n[budget.record]\nepsilon = 2.0\n")
    patient, record = budgets_of(load_site_config(home.config))
    assert (patient.dataset, patient.unit, patient.epsilon) == ("icu", "patient", 10.0)
    assert (record.unit, record.epsilon) == ("record", 2.0)
