"""A site's books, its ledger and its audit log: how they begin, and how one looks into them while the node runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.config import SiteConfig
from client.home import SiteHome
from client.keys import site_identity
from client.ledger.anchor import host_identifier
from client.ledger.check import LedgerView, read_ledger
from client.ledger.recovery import create_ledger
from client.ledger.rows import new_row
from client.ledger.rules import budget_entry, refuse_renamed
from client.ledger.state import Balance, Budget, LedgerState, Quote, Reservation
from common.audit import AuditLog
from common.audit_events import AdminCommand
from common.identity import public_name
from common.privacy.plan import PrivacyPlan


def begin_books(home: SiteHome, by: str) -> None:
    """Begin ledger and audit log of a new site.

    Args:
        home: With its keys.
        by: Who makes the site.

    Raises:
        IntegrityError: When there are books already, or were.
    """
    identity = site_identity(home)
    create_ledger(home.ledger, home.ledger_anchor, identity, host_identifier(home.keys))
    AuditLog(home.audit, home.audit_anchor, identity).record(AdminCommand(command="init", by=by))


@dataclass(frozen=True)
class LedgerOutlook:
    """The ledger as the node will have it when it next opens it: with the budgets that site.toml names now.

    Attributes:
        view: What is written.
        state: The same, after the budgets of site.toml.
        now: The clock.
    """

    view: LedgerView
    state: LedgerState
    now: datetime

    @property
    def latest_time(self) -> datetime:
        """As `client.ledger.ledger.Ledger.latest_time`."""
        return max(self.state.latest_time, self.now)

    def reservation(self, plan_digest: str) -> Reservation | None:
        """What was set aside for a plan that can still go on."""
        return self.state.reservation(plan_digest)

    def is_closed(self, plan_digest: str) -> bool:
        """Whether a plan is from before a recovery."""
        return plan_digest in self.state.closed

    def quote(self, dataset: str, mechanism: PrivacyPlan) -> Quote:
        """What a mechanism would cost."""
        return self.state.quote(dataset, mechanism)

    def balances(self) -> tuple[Balance, ...]:
        """The balance of every budget that the ledger knows or will know."""
        return tuple(account.balance(key) for key, account in sorted(self.state.accounts.items()))


def look_at_ledger(home: SiteHome, identity: Ed25519PrivateKey, budgets: tuple[Budget, ...]) -> LedgerOutlook:
    """Look into the ledger, also while the node writes it; nothing is written.

    Args:
        home: Whose ledger.
        identity: The site's key.
        budgets: What site.toml allows.

    Raises:
        ConfigError: When a budget is out of range, has another order than it was created with, or is for a data set
            under another name than what was charged.
        IntegrityError, RollbackError, TryAgainError: As `client.ledger.check.read_ledger`.
    """
    view = read_ledger(home.ledger, home.ledger_anchor, public_name(identity), host_identifier(home.keys))
    now, rows, state = datetime.now(UTC), list(view.rows), view.state
    refuse_renamed(state, budgets)
    for budget in budgets:
        entry = budget_entry(state, budget)
        if entry is not None:
            rows.append(new_row(rows[-1], entry, now, identity))
            state = state.after(rows[-1])
    return LedgerOutlook(view, state, now)


def budgets_of(config: SiteConfig) -> tuple[Budget, ...]:
    """The budgets that the hospital's settings allow."""
    return tuple(
        Budget(config.data.dataset, unit, budget.epsilon, budget.delta, budget.order)
        for unit, budget in config.budget.by_unit()
    )
