"""Does this site take part in a plan? What was offered, what a person approved, what policy and ledger say."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.approvals import read_approval
from client.config import SiteConfig
from client.enrolment import Pinned
from client.home import SiteHome
from client.ledger import Ledger
from client.ledger_state import Quote, Reservation
from client.policy import PolicyContext, Reason, reasons_to_refuse
from common.audit import AuditLog
from common.audit_events import PlanSeen, Refused, Reserved
from common.base_files import find_copy
from common.errors import CloisterError, IntegrityError, RefusedError
from common.files import write_durably
from common.identity import public_name
from common.moments import moment_text
from common.plan import Plan
from common.privacy.mechanism import mechanism_of
from common.privacy.plan import PrivacyPlan
from common.private_files import PRIVATE_FILE
from common.signed_plan import SignedPlan, read_signed_plan, write_signed_plan

State = Literal["accepted", "waiting", "refused"]

_COST_DIGITS = 6


@dataclass(frozen=True)
class Verdict:
    """What a site says to a plan.

    Attributes:
        state: accepted, waiting for a person here, or refused.
        reasons: Every limit of the policy that the plan breaks.
        over_budget: Whether the ledger has not enough left for it.
    """

    state: State
    reasons: tuple[Reason, ...] = ()
    over_budget: bool = False

    @property
    def codes(self) -> tuple[str, ...]:
        """What may be told to the coordinator, in order."""
        return tuple(sorted({*(reason.code for reason in self.reasons), *(["over-budget"] * self.over_budget)}))


class NotTakingPartError(RefusedError):
    """This site does not take part in the plan; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        first = str(verdict.reasons[0]) if verdict.reasons else "the ledger has not enough left for it"
        super().__init__(f"this site does not take part in the plan: {first}", hint="`cloister-site review` lists all")
        self.verdict = verdict


class Books(Protocol):
    """What is asked of a ledger before anything is spent; also of one that is only looked at."""

    @property
    def latest_time(self) -> datetime:
        """The latest time ever seen."""
        ...

    def reservation(self, plan_digest: str) -> Reservation | None:
        """What was set aside for a plan, if anything was."""
        ...

    def quote(self, dataset: str, mechanism: PrivacyPlan) -> Quote:
        """What a mechanism would cost, and whether it fits."""
        ...


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
    _plans: dict[str, SignedPlan] = field(default_factory=dict)

    def offer(self, document: bytes) -> tuple[SignedPlan, Verdict]:
        """Look at a signed plan and keep it for review.

        Raises:
            IntegrityError: When it is no plan of the pinned coordinator and federation.
        """
        signed = keep_plan(self.home, self.audit, self.pinned, document)
        self._plans[signed.digest] = signed
        return signed, self.verdict(signed)

    def verdict(self, signed: SignedPlan, trained_values: int | None = None) -> Verdict:
        """What policy and ledger say to a plan now; nothing is written.

        Args:
            signed: The plan.
            trained_values: d, once it is known.
        """
        return judge(signed, self.home, self.config, self.identity, self.ledger, trained_values)

    def check(self, digest: str, trained_values: int | None = None) -> SignedPlan:
        """The plan, if this site takes part in it.

        Raises:
            NotTakingPartError: When it does not, or not any more.
            RefusedError: When no such plan was ever offered.
        """
        signed = self._plan(digest)
        verdict = self.verdict(signed, trained_values)
        if verdict.state != "accepted":
            self.audit.record(Refused(plan=digest, codes=verdict.codes))
            raise NotTakingPartError(verdict)
        return signed

    def reserve(self, signed: SignedPlan) -> None:
        """Set a plan's full cost aside, once.

        Raises:
            BudgetError: When not enough is left.
        """
        plan, dataset = signed.plan, self.config.data.dataset
        is_new = self.ledger.reservation(signed.digest) is None
        made = self.ledger.reserve(
            signed.digest, plan.name, signed.coordinator, dataset, mechanism_of(plan), plan.rounds
        )
        if is_new:
            cost = round(made.cost + 0.5 * 10**-_COST_DIGITS, _COST_DIGITS)
            self.audit.record(
                Reserved(plan=signed.digest, dataset=dataset, unit=made.unit, rounds=made.rounds, cost=cost)
            )

    def _plan(self, digest: str) -> SignedPlan:
        if digest not in self._plans:
            path = self.home.plan(digest)
            if not path.exists():
                raise RefusedError("no such plan was offered to this site", hint="the coordinator offers it first")
            self._plans[digest] = checked_plan(path.read_bytes(), self.pinned)
        return self._plans[digest]


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
    if not home.plan(signed.digest).exists():
        seen = PlanSeen(
            plan=signed.digest,
            name=signed.plan.name,
            coordinator=signed.coordinator,
            valid_until=moment_text(signed.valid_until),
        )
        audit.record(seen)
        write_durably(home.plan(signed.digest), write_signed_plan(signed), mode=PRIVATE_FILE)
    return signed


def judge(
    signed: SignedPlan,
    home: SiteHome,
    config: SiteConfig,
    identity: Ed25519PrivateKey,
    books: Books,
    trained_values: int | None = None,
) -> Verdict:
    """What policy and ledger say to a checked plan now; nothing is written.

    Args:
        signed: The plan.
        home: Where approvals are.
        config: The hospital's limits.
        identity: The site's key.
        books: The ledger, or a look at it.
        trained_values: d, once it is known.
    """
    context = PolicyContext(
        site=config.name,
        identity_public=public_name(identity),
        coordinator_public=signed.coordinator,
        now=books.latest_time,
        valid_until=signed.valid_until,
        approved=read_approval(home, signed.digest) is not None,
        base_is_local=_base_is_local(signed.plan, config),
        trained_values=trained_values,
        issued=signed.issued,
    )
    reasons = reasons_to_refuse(signed.plan, config.policy, context)
    over_budget = not _fits(signed.plan, config, books)
    return Verdict(_state(reasons, over_budget), reasons, over_budget)


def _fits(plan: Plan, config: SiteConfig, books: Books) -> bool:
    """Whether the ledger has enough left, or has set the cost aside already; unknown is no."""
    if books.reservation(plan.digest) is not None:
        return True
    try:
        return books.quote(config.data.dataset, mechanism_of(plan)).fits
    except CloisterError:
        return False


def _base_is_local(plan: Plan, config: SiteConfig) -> bool:
    """Whether the base was put here by this site's people; hashed only where the policy asks for it."""
    if not config.policy.base_must_be_local:
        return False
    return find_copy(config.base.local, plan.base) is not None


def _state(reasons: tuple[Reason, ...], over_budget: bool) -> State:
    if not reasons and not over_budget:
        return "accepted"
    only_waiting = not over_budget and all(reason.code == "not-approved" for reason in reasons)
    return "waiting" if only_waiting else "refused"
