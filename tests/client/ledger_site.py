"""A site with a ledger, for tests: where its files are, how it opens them, and how an attacker changes them."""

import shutil
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from client.ledger.check import LedgerView, read_ledger
from client.ledger.ledger import Budget, Ledger, open_ledger
from client.ledger.recovery import create_ledger, recover_ledger
from common.identity import new_identity, public_name
from common.privacy.plan import PrivacyPlan

HOST, OTHER_HOST = "1" * 64, "2" * 64
PLAN, OTHER_PLAN, THIRD_PLAN = "a" * 64, "b" * 64, "c" * 64
COORDINATOR, OTHER_COORDINATOR = "d" * 64, "e" * 64
ORDER, OTHER_ORDER = "1" * 64, "2" * 64
BUDGET = Budget("records", "patient", 5.0, 1e-5)
ROUNDS = 20
# Each takes 37 % of the budget above: two fit, three do not.
RUN = PrivacyPlan("patient", 0.05, 550, 1.0, 2.0, 10.0, 1e-5, 16, "skellam", 2)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Site:
    """One site's folder, as `SiteHome` lays it out."""

    folder: Path
    identity: object = field(default_factory=new_identity)
    host: str = HOST
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        (self.folder / "keys").mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        return self.folder / "ledger.sqlite"

    @property
    def anchor(self) -> Path:
        return self.folder / "keys" / "ledger.anchor"

    @property
    def public(self) -> str:
        return public_name(self.identity)

    def create(self) -> "Site":
        create_ledger(self.path, self.anchor, self.identity, self.host, clock=self.clock)
        return self

    def open(self, *budgets: Budget) -> Ledger:
        return open_ledger(self.path, self.anchor, self.identity, budgets or (BUDGET,), self.host, clock=self.clock)

    def read(self) -> LedgerView:
        return read_ledger(self.path, self.anchor, self.public, self.host)

    def recover(self, reason: str = "the disk was replaced") -> Path | None:
        return recover_ledger(self.path, self.anchor, self.identity, self.host, reason, clock=self.clock)

    def copy(self, name: str) -> "Site":
        """A copy of all files as they are now, which can be put back."""
        target = self.folder.parent / name
        shutil.copytree(self.folder, target)
        return Site(target, self.identity, self.host, self.clock)

    def put_back(self, copy: "Site", *, ledger: bool = True, anchor: bool = True) -> None:
        if ledger:
            shutil.copy(copy.path, self.path)
        if anchor:
            shutil.copy(copy.anchor, self.anchor)

    def sql(self, statement: str, *values: object) -> list[tuple]:
        with sqlite3.connect(self.path) as connection:
            found = connection.execute(statement, values).fetchall()
        connection.close()
        return found


def reserve(ledger: Ledger, plan: str = PLAN, mechanism: PrivacyPlan = RUN, rounds: int = ROUNDS, **changes):
    values = {"plan_name": "study", "coordinator": COORDINATOR, "dataset": "records", **changes}
    return ledger.reserve(plan, values["plan_name"], values["coordinator"], values["dataset"], mechanism, rounds)
