"""Which plans a site takes part in: what was offered and kept, what is said to it, and what is set aside for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.config import SiteConfig
from client.enrolment import Pinned
from client.home import SiteHome
from client.ledger.ledger import Ledger
from client.spending_notes import SpendingNotes
from client.verdict import Verdict, find_locally, judge
from common.audit import AuditLog
from common.audit_events import PlanSeen, Refused, Reserved
from common.errors import IntegrityError, RefusedError
from common.files import write_durably
from common.moments import moment_text
from common.plan import Plan
from common.privacy.mechanism import mechanism_of
from common.private_files import PRIVATE_FILE
from common.signed_plan import SignedPlan, read_signed_plan, write_signed_plan

MOST_OFFERS = 100
"""Signed plans that are kept for review; each is at most a mebibyte."""

_COST_DIGITS = 6


class NotTakingPartError(RefusedError):
    """This site does not take part in the plan; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        first = str(verdict.reasons[0]) if verdict.reasons else "the ledger has not enough left for it"
        super().__init__(f"this site does not take part in the plan: {first}", hint="`cloister-site review` lists all")
        self.verdict = verdict


@dataclass(frozen=True, eq=False, repr=False)
class Acceptance:
    """Decides which plans a site takes part in, and sets their cost aside.

    Guarantees:
        A plan counts only when the pinned coordinator signed it for the pinned federation. The policy is asked anew for
        every request, at the latest time that the ledger has seen, so that an approval that was withdrawn, a policy
        that expired and a clock that moved back all count at once. `reserve` returns only when the plan's full cost is
        in the ledger.

    Args:
        home: Where plans and approvals are kept.
        config: The hospital's own settings.
        pinned: The coordinator.
        identity: The site's key.
        ledger: Open for writing.
        audit: Where plans, reservations and refusals are written down.
    """

    home: SiteHome
    config: SiteConfig
    pinned: Pinned
    identity: Ed25519PrivateKey
    ledger: Ledger
    audit: AuditLog
    spendings: SpendingNotes = field(init=False)
    _plans: dict[str, SignedPlan] = field(default_factory=dict)
    _local_bases: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spendings", SpendingNotes(self.audit))

    def read(self, document: bytes) -> SignedPlan:
        """A signed plan; nothing is kept.

        Raises:
            IntegrityError: When it is no plan of the pinned coordinator and federation.
        """
        return checked_plan(document, self.pinned)

    def offer(self, signed: SignedPlan) -> Verdict:
        """Keep a plan for review, and say what policy and ledger say to it.

        Edge cases:
            Offers that nobody here approved are kept up to `MOST_OFFERS`: a coordinator must not fill the disk.

        Raises:
            RefusedError: When so many are kept already.
            IntegrityError: When this site's own files are damaged.
        """
        if not self.home.plan(signed.digest).exists() and self._unapproved() >= MOST_OFFERS:
            raise RefusedError(
                f"{MOST_OFFERS} plans that nobody approved are kept here already",
                hint=f"remove those that nobody wants from {self.home.plans}",
            )
        keep_signed(self.home, self.audit, signed)
        self._plans[signed.digest] = signed
        return self.verdict(signed)

    def _unapproved(self) -> int:
        kept = {path.stem for path in self.home.plans.glob("*.json")}
        return len(kept - {path.stem for path in self.home.approvals.glob("*.json")})

    def offered(self, digest: str) -> SignedPlan | None:
        """A plan that was offered before, by whatever process; None where it never was."""
        if digest not in self._plans:
            path = self.home.plan(digest)
            if not path.exists():
                return None
            signed = checked_plan(path.read_bytes(), self.pinned)
            if signed.digest != digest:
                raise IntegrityError(
                    f"{path} holds another plan than its name says", hint="remove it; it is offered again"
                )
            self._plans[digest] = signed
        return self._plans[digest]

    def verdict(self, signed: SignedPlan, trained_values: int | None = None) -> Verdict:
        """What policy and ledger say to a plan now; nothing is written.

        Args:
            signed: The plan.
            trained_values: d, once it is known.
        """
        is_local = self._base_is_local(signed.plan)
        return judge(signed, self.home, self.config, self.identity, self.ledger, trained_values, base_is_local=is_local)

    def check(self, digest: str, trained_values: int | None = None) -> SignedPlan:
        """The plan, if this site takes part in it.

        Raises:
            NotTakingPartError: When it does not, or not any more.
            RefusedError: When no such plan was ever offered.
            IntegrityError: When the plan or its approval, as they are kept here, was changed.
        """
        signed = self.offered(digest)
        if signed is None:
            raise RefusedError("no such plan was offered to this site", hint="the coordinator offers it first")
        verdict = self.verdict(signed, trained_values)
        if verdict.state != "accepted":
            self.audit.record(Refused(plan=digest, codes=verdict.codes))
            raise NotTakingPartError(verdict)
        return signed

    def reserve(self, signed: SignedPlan) -> None:
        """Set a plan's full cost aside, once; what the audit log did not take the last time is written there first.

        Raises:
            BudgetError: When not enough is left.
            TryAgainError, OSError: When a book cannot be written now; to be called again.
        """
        self.spendings.settle()
        plan, dataset = signed.plan, self.config.data.dataset
        is_new = self.ledger.reservation(signed.digest) is None
        made = self.ledger.reserve(
            signed.digest, plan.name, signed.coordinator, dataset, mechanism_of(plan), plan.rounds
        )
        if is_new:
            cost = round(made.cost + 0.5 * 10**-_COST_DIGITS, _COST_DIGITS)
            self.spendings.note(
                Reserved(plan=signed.digest, dataset=dataset, unit=made.unit, rounds=made.rounds, cost=cost)
            )

    def is_reserved(self, digest: str) -> bool:
        """Whether the ledger has set a cost aside for a plan, so that there may have been a run of it."""
        return self.ledger.reservation(digest) is not None

    def _base_is_local(self, plan: Plan) -> bool:
        """As `find_locally`, but what was found once is not hashed again for every request."""
        name = plan.base.digest
        if name not in self._local_bases and find_locally(plan, self.config):
            self._local_bases.add(name)
        return name in self._local_bases


def checked_plan(document: bytes, pinned: Pinned) -> SignedPlan:
    """A signed plan of the pinned coordinator.

    Raises:
        IntegrityError: When it is malformed, or somebody else's.
    """
    signed = read_signed_plan(document)
    invitation = pinned.invitation
    if (signed.coordinator, signed.federation) != (invitation.coordinator, invitation.federation):
        raise IntegrityError(
            "the plan is signed by another coordinator, or for another federation, than this site has accepted",
            hint="ask the coordinator that you know where this plan comes from",
        )
    return signed


def keep_plan(home: SiteHome, audit: AuditLog, pinned: Pinned, document: bytes) -> SignedPlan:
    """Keep a signed plan for review, and write down when it was first seen.

    Raises:
        IntegrityError: As `checked_plan`.
    """
    signed = checked_plan(document, pinned)
    keep_signed(home, audit, signed)
    return signed


def keep_signed(home: SiteHome, audit: AuditLog, signed: SignedPlan) -> None:
    """Keep a checked plan for review, and write down when it was seen first, or signed anew with another validity."""
    path, document = home.plan(signed.digest), write_signed_plan(signed)
    if not path.exists() or path.read_bytes() != document:
        seen = PlanSeen(
            plan=signed.digest,
            name=signed.plan.name,
            coordinator=signed.coordinator,
            valid_until=moment_text(signed.valid_until),
        )
        audit.record(seen)
        write_durably(path, document, mode=PRIVATE_FILE)
