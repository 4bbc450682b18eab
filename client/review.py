"""What a person at the hospital has to know before approving a plan: what it asks, what stands against it, its cost."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.acceptance import checked_plan, keep_plan
from client.approvals import Approval, read_approval
from client.books import LedgerOutlook, budgets_of, look_at_ledger
from client.config import SiteConfig, load_site_config
from client.enrolment import Pinned, read_pinned
from client.home import SiteHome
from client.keys import site_identity
from client.ledger.state import Balance, Quote
from client.site_audit import open_audit
from client.verdict import Verdict, judge
from common.armour import block_kind, refuse_kind
from common.errors import CloisterError, ConfigError, NotApprovedError, UsageError
from common.privacy.accountant import epsilon
from common.privacy.mechanism import mechanism_of
from common.signed_plan import SIGNED_PLAN_LIMIT_BYTES, SignedPlan

DIGITS = 64
"""Of a plan's digest."""

_SHORTEST_PREFIX = 4
_SHOWN = 200


@dataclass(frozen=True)
class Review:
    """One plan before this hospital's limits and books.

    Attributes:
        signed: The plan.
        verdict: What the policy and the ledger say.
        epsilon: ε of the whole run by the tightest accountant; None where it cannot be worked out.
        quote: What it takes out of the budget; None where that cannot be worked out.
        before: The budget now; None where there is none for the plan's unit.
        after: The budget once the plan is paid for; `before` where that has happened already.
        reserved: Whether the cost was set aside already.
        last_round: The last round that was charged here; 0 before the first.
        approval: A person's yes, if there is one.
    """

    signed: SignedPlan
    verdict: Verdict
    epsilon: float | None
    quote: Quote | None
    before: Balance | None
    after: Balance | None
    reserved: bool
    last_round: int
    approval: Approval | None


@dataclass(frozen=True, eq=False, repr=False)
class Desk:
    """Everything that a review needs of a site; the node may run meanwhile."""

    home: SiteHome
    config: SiteConfig
    identity: Ed25519PrivateKey
    pinned: Pinned
    books: LedgerOutlook

    def review(self, signed: SignedPlan) -> Review:
        """Hold one plan against limits and books; nothing is written."""
        books, digest, unit = self.books, signed.digest, signed.plan.privacy.unit
        dataset, reserved = self.config.data.dataset, books.reservation(signed.digest) is not None
        account = books.state.accounts.get((dataset, unit))
        quote = _quote(books, dataset, signed)
        before = after = None if account is None else account.balance((dataset, unit))
        if account is not None and quote is not None and not reserved:
            after = replace(account, costs=(*account.costs, quote.cost)).balance((dataset, unit))
        return Review(
            signed=signed,
            verdict=judge(signed, self.home, self.config, self.identity, books),
            epsilon=_epsilon(signed),
            quote=quote,
            before=before,
            after=after,
            reserved=reserved,
            last_round=books.state.committed(digest).last_round,
            approval=read_approval(self.home, digest),
        )

    def plans(self) -> tuple[SignedPlan, ...]:
        """Every plan that was offered or reviewed here, newest first."""
        kept = (self._read(path) for path in self.home.plans.glob("*.json"))
        return tuple(sorted(kept, key=lambda signed: (signed.issued, signed.digest), reverse=True))

    def find(self, digest: str) -> SignedPlan:
        """A plan that was offered or reviewed here, by its digest or a beginning of it that fits no other.

        Raises:
            NotApprovedError: When there is none.
            UsageError: When it is no beginning of a digest, or of several.
        """
        found = sorted(self.home.plans.glob(f"{digest}*.json")) if is_prefix(digest) else []
        if len(found) > 1:
            raise UsageError(f"{len(found)} plans have digests that begin with {digest}", hint="give more of it")
        if not found:
            hint = "`cloister-site plans` lists those that are here; `cloister-site review FILE` brings one in"
            which = "this digest" if len(digest) == DIGITS else f"a digest that begins with {digest[:DIGITS]!r}"
            raise NotApprovedError(f"no plan here has {which}", hint=hint)
        return self._read(found[0])

    def take_in(self, plan: str) -> SignedPlan:
        """A plan by its file, which is then kept here, or as `find`.

        Raises:
            ConfigError: When there is none, it cannot be read, or it is another document than a signed plan.
            IntegrityError: When it is no plan of the pinned coordinator.
        """
        path = Path(plan)
        if not path.is_file():
            if not is_prefix(plan):
                hint = "check the path; `cloister-site plans` lists the plans that are here, with their digests"
                raise ConfigError(f"there is no file {plan[:_SHOWN]!r}, and no digest begins so", hint=hint)
            return self.find(plan)
        document = read_plan_file(path)
        _refuse_others(document)
        return keep_plan(self.home, open_audit(self.home), self.pinned, document)

    def _read(self, path: Path) -> SignedPlan:
        return checked_plan(read_plan_file(path), self.pinned)


def open_desk(home: SiteHome) -> Desk:
    """Read what a review needs.

    Raises:
        ConfigError: When site.toml is unfit, or no invitation was accepted.
        IntegrityError, RollbackError: When a kept file is damaged, lost or old.
    """
    config, identity, pinned = load_site_config(home.config), site_identity(home), read_pinned(home)
    return Desk(home, config, identity, pinned, look_at_ledger(home, identity, budgets_of(config)))


def read_plan_file(path: Path) -> bytes:
    """A file that should hold a plan; not more of it than a plan can have.

    Raises:
        ConfigError: When it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(SIGNED_PLAN_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the plan {path} cannot be read: {error.strerror}", hint="check the path") from None


def _refuse_others(document: bytes) -> None:
    """Tell a person who took the wrong file that it is one, rather than that it was changed on the way.

    Raises:
        ConfigError: When it is a draft, or a document of enrolment.
    """
    text = document.decode("utf-8", errors="replace")
    if kind := block_kind(text):
        raise refuse_kind(kind, "signed plan")
    if _is_toml(text):
        hint = "a draft: the coordinator signs it by `cloister-coordinator plan check --sign`, and sends the result"
        raise ConfigError("this is a draft of a plan, or another TOML file, and a signed plan is wanted", hint=hint)


def _is_toml(text: str) -> bool:
    try:
        return bool(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError):
        return False


def is_prefix(text: str) -> bool:
    """Whether a text may be the beginning of a digest."""
    return _SHORTEST_PREFIX <= len(text) <= DIGITS and not set(text) - set("0123456789abcdef")


def _epsilon(signed: SignedPlan) -> float | None:
    try:
        return epsilon(mechanism_of(signed.plan))
    except (CloisterError, ArithmeticError, ValueError):  # constants that no accountant takes: policy says so
        return None


def _quote(books: LedgerOutlook, dataset: str, signed: SignedPlan) -> Quote | None:
    try:
        return books.quote(dataset, mechanism_of(signed.plan))
    except (CloisterError, ArithmeticError, ValueError):  # as above, or there is no such budget
        return None
