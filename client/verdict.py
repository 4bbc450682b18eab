"""Does this site take part in a plan? What a person approved, and what policy and ledger say, in one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.approvals import read_approval
from client.config import SiteConfig
from client.home import SiteHome
from client.ledger.state import Quote, Reservation
from client.policy import PolicyContext, Reason, reasons_to_refuse
from common.base_files import find_copy
from common.errors import CloisterError, IntegrityError
from common.identity import public_name
from common.plan import Plan
from common.privacy.mechanism import mechanism_of
from common.privacy.plan import PrivacyPlan
from common.reasons import PolicyCode
from common.signed_plan import SignedPlan

_log = structlog.get_logger()

State = Literal["accepted", "waiting", "refused"]

_AFTER_LOADING: PolicyCode = "too-many-trained-values"


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


class Books(Protocol):
    """What is asked of a ledger before anything is spent; also of one that is only looked at."""

    @property
    def latest_time(self) -> datetime:
        """The latest time ever seen."""
        ...

    def reservation(self, plan_digest: str) -> Reservation | None:
        """What was set aside for a plan, if anything was."""
        ...

    def is_closed(self, plan_digest: str) -> bool:
        """Whether a plan is from before a recovery, so that it is never taken up again."""
        ...

    def quote(self, dataset: str, mechanism: PrivacyPlan) -> Quote:
        """What a mechanism would cost, and whether it fits."""
        ...


def judge(  # noqa: PLR0913 - the plan, the limits, and each book that has a say
    signed: SignedPlan,
    home: SiteHome,
    config: SiteConfig,
    identity: Ed25519PrivateKey,
    books: Books,
    trained_values: int | None = None,
    *,
    base_is_local: bool | None = None,
) -> Verdict:
    """What policy and ledger say to a checked plan now; nothing is written.

    Edge cases:
        An approval ends with the signed plan that the person was shown, however often its coordinator signs the plan
        anew. d is known once the model is loaded, also where its files are local: a limit on it is left for then.

    Args:
        signed: The plan.
        home: Where approvals are.
        config: The hospital's limits.
        identity: The site's key.
        books: The ledger, or a look at it.
        trained_values: d, once it is known.
        base_is_local: What `find_locally` says, where the caller has asked it already.
    """
    approval, now = read_approval(home, signed.digest), books.latest_time
    context = PolicyContext(
        site=config.name,
        identity_public=public_name(identity),
        coordinator_public=signed.coordinator,
        now=now,
        valid_until=signed.valid_until,
        # Past its own end a plan is expired, which says more than that nobody has approved it for longer.
        approved=approval is not None and approval.holds_at(min(now, signed.valid_until)),
        base_is_local=find_locally(signed.plan, config) if base_is_local is None else base_is_local,
        trained_values=trained_values,
        issued=signed.issued,
    )
    found = reasons_to_refuse(signed.plan, config.policy, context)
    reasons = tuple(reason for reason in found if trained_values is not None or reason.code != _AFTER_LOADING)
    over_budget = not _fits(signed.plan, config, books)
    return Verdict(_state(reasons, over_budget), reasons, over_budget)


def _fits(plan: Plan, config: SiteConfig, books: Books) -> bool:
    """Whether the ledger has enough left, or has set the cost aside already; unknown is no, and so is a closed plan."""
    if books.is_closed(plan.digest):
        return False
    if books.reservation(plan.digest) is not None:
        return True
    try:
        return books.quote(config.data.dataset, mechanism_of(plan)).fits
    except CloisterError:
        return False


def find_locally(plan: Plan, config: SiteConfig) -> bool:
    """Whether the base was put here by this site's people; one that is unfit was not.

    Its files are hashed, and only where the policy asks for it: elsewhere the answer is no.
    """
    if not config.policy.base_must_be_local:
        return False
    try:
        return find_copy(config.base.local, plan.base) is not None
    except IntegrityError as error:
        _log.warning("the local base is not used", reason=error.message)
        return False


def _state(reasons: tuple[Reason, ...], over_budget: bool) -> State:
    if not reasons and not over_budget:
        return "accepted"
    only_waiting = not over_budget and all(reason.code == "not-approved" for reason in reasons)
    return "waiting" if only_waiting else "refused"
