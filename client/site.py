"""A hospital's side of everything: one sealed request in, one sealed answer out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from client.acceptance import Acceptance, NotTakingPartError
from client.base_cache import BaseCache
from client.inbox import ForgottenAnswersError, Inbox, NotFromCoordinatorError, Opened, UnfitEnvelopeError
from client.outbox import Outbox
from common.audit import AuditLog
from common.audit_events import MessageRefused, MessageRepeated, Refused, RollbackDetected, RunEnded
from common.errors import BudgetError, CloisterError, IntegrityError, RefusedError, RollbackError
from common.fields import RefusalCode
from common.messages import Refusal, RoundOrder
from common.secagg.messages import MaskedOrder, RevealRequest, SessionInvite, SessionRoster, SurvivorSet
from common.signed_plan import SignedPlan
from common.study_messages import BaseChunk, BaseQuery, PlanAnswer, PlanOffer, RunNoted, RunOver
from common.wire import decode

_log = structlog.get_logger()

_STUDY_KINDS = (PlanOffer, BaseQuery, BaseChunk, RunOver)
_ROUND_KINDS = (RoundOrder, SessionInvite, SessionRoster, MaskedOrder, SurvivorSet, RevealRequest)


class Node(Protocol):
    """What answers the requests of one run; `client.node.SiteNode`."""

    def answer(self, request: bytes) -> bytes:
        """Check, charge, train, answer."""
        ...


OpenNode = Callable[[SignedPlan, BaseCache], tuple[Node, int]]
"""Makes a node ready for an accepted, reserved plan whose base is here; gives it and the number of trained values."""

OpenBase = Callable[[SignedPlan], BaseCache]


@dataclass(eq=False, repr=False)
class Site:
    """Answers whatever comes in the coordinator's name.

    Guarantees:
        What the pinned coordinator did not sign gets no answer, and neither does anything when this site's own files
        are not what they should be. The policy is asked for every request of a run, and the full cost is in the ledger
        before a record is read. A refusal travels as a code; its reason stays in this site's log. The same request gets
        the identical bytes.

    Edge cases:
        A node is made ready when the base is complete, or at the first request after a restart; that takes as long as
        loading the base and computing the frozen layers. What fails in it is answered with a code, and tried again at
        the next request.

    Attributes:
        fatal: Set when an older copy of this site's files was found: send what `answer` returned, and stop.

    Args:
        name: Of the site.
        inbox: Who speaks, and in which order.
        acceptance: Policy and ledger.
        audit: Where everything is written down.
        open_base: The base of a plan.
        open_node: Makes a node ready.
    """

    name: str
    inbox: Inbox
    acceptance: Acceptance
    audit: AuditLog
    open_base: OpenBase
    open_node: OpenNode
    _outbox: Outbox = field(init=False)
    fatal: RollbackError | None = field(default=None, init=False)
    _bases: dict[str, BaseCache] = field(default_factory=dict)
    _nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._outbox = Outbox(self.name, 0, self.audit.record)

    def answer(self, request: bytes) -> bytes | None:
        """The sealed answer to a sealed request; None where none is due.

        Raises:
            IntegrityError: When this site's own files are damaged; nothing was released.
            OSError: When this site's disk fails; nothing was released.
        """
        try:
            opened = self.inbox.open(request)
        except NotFromCoordinatorError:
            self._note_refused("not-signed", request)
            return None
        except Inbox.REFUSALS as refused:
            return self._refuse_envelope(refused, request)
        if opened.kept is not None:
            self.audit.record(
                MessageRepeated(digest=_sha256(opened.kept), size_bytes=len(opened.kept), recipient="coordinator")
            )
            return opened.kept
        return self.inbox.reply(opened, self._handle(opened))

    # --- what a request asks ---

    def _handle(self, opened: Opened) -> bytes:
        envelope = opened.envelope
        try:
            message = decode(bytes(envelope.body), *_STUDY_KINDS, *_ROUND_KINDS)
        except IntegrityError as error:
            return self._refuse(envelope.plan_digest, 0, "malformed", error.message)
        number = getattr(message, "round_number", 0)
        if message.plan_digest != envelope.plan_digest:
            return self._refuse(envelope.plan_digest, number, "other-plan", "envelope and request name two plans")
        try:
            return self._serve(message, bytes(envelope.body))
        except (NotTakingPartError, BudgetError) as error:
            return self._refuse(message.plan_digest, number, "not-taking-part", error.message)
        except RefusedError as error:
            return self._refuse(message.plan_digest, number, "other-plan", error.message)

    def _serve(self, message: Any, body: bytes) -> bytes:  # noqa: ANN401 - one of the kinds that were decoded
        match message:
            case PlanOffer():
                return self._look_at_plan(message)
            case RunOver():
                return self._tidy(message)
            case BaseQuery() | BaseChunk():
                return self._take_base(message)
            case _:
                return self._take_part(message, body)

    def _look_at_plan(self, offer: PlanOffer) -> bytes:
        try:
            signed, verdict = self.acceptance.offer(offer.document.tobytes())
        except IntegrityError as error:
            return self._refuse(offer.plan_digest, 0, "malformed", error.message)
        if signed.digest != offer.plan_digest:
            return self._refuse(offer.plan_digest, 0, "other-plan", "the offer holds another plan than it names")
        _log.info("plan offered", plan=signed.digest, name=signed.plan.name, state=verdict.state)
        if verdict.state == "refused":
            self.audit.record(Refused(plan=signed.digest, codes=verdict.codes))
        return self._outbox.release(PlanAnswer(offer.plan_digest, self.name, verdict.state, verdict.codes))

    def _take_base(self, message: BaseQuery | BaseChunk) -> bytes:
        """Take in a piece of the base; when it is whole, make the node ready before saying so."""
        signed = self.acceptance.check(message.plan_digest)
        base = self._base(signed)
        need = base.need() if isinstance(message, BaseQuery) else base.receive(message)
        if need.state == "complete" and message.plan_digest not in self._nodes:
            fault = self._make_ready(signed)
            if fault is not None:
                return fault
        return self._outbox.release(need)

    def _take_part(self, message: Any, body: bytes) -> bytes:  # noqa: ANN401 - as above
        signed = self.acceptance.check(message.plan_digest)
        number = getattr(message, "round_number", 0)
        if signed.digest not in self._nodes:
            if self._base(signed).find() is None:
                return self._refuse(signed.digest, number, "not-ready", "the base model is not here")
            fault = self._make_ready(signed, number)
            if fault is not None:
                return fault
        return self._nodes[signed.digest].answer(body)

    def _tidy(self, message: RunOver) -> bytes:
        if self._nodes.pop(message.plan_digest, None) is not None:
            self.audit.record(RunEnded(plan=message.plan_digest, outcome=message.outcome))
        self._bases.pop(message.plan_digest, None)
        _log.info("run over", plan=message.plan_digest, outcome=message.outcome)
        return self._outbox.release(RunNoted(message.plan_digest, self.name))

    # --- making ready ---

    def _base(self, signed: SignedPlan) -> BaseCache:
        if signed.digest not in self._bases:
            self._bases[signed.digest] = self.open_base(signed)
        return self._bases[signed.digest]

    def _make_ready(self, signed: SignedPlan, round_number: int = 0) -> bytes | None:
        """Set the cost aside, then open the study; what goes wrong with it is a refusal to send."""
        self.acceptance.reserve(signed)
        try:
            node, trained_values = self.open_node(signed, self._bases[signed.digest])
        except RollbackError as error:
            self._stop_for(error)
            return self._refuse(signed.digest, round_number, "rolled-back", error.message)
        except CloisterError as error:
            return self._refuse(signed.digest, round_number, "not-ready", error.message)
        self.acceptance.check(signed.digest, trained_values)
        self._nodes[signed.digest] = node
        return None

    # --- refusals ---

    def _refuse(self, plan_digest: str, round_number: int, code: RefusalCode, reason: str) -> bytes:
        _log.warning("request refused", site=self.name, round=round_number, code=code, reason=reason)
        self.audit.record(Refused(plan=plan_digest, codes=(code,), round_number=round_number))
        return self._outbox.release(Refusal(plan_digest, round_number, self.name, code))

    def _refuse_envelope(self, refused: UnfitEnvelopeError | ForgottenAnswersError, request: bytes) -> bytes:
        self._note_refused(refused.code, request)
        if isinstance(refused, ForgottenAnswersError):
            self._stop_for(refused)
        envelope = refused.opened.envelope
        refusal = Refusal(envelope.plan_digest, envelope.round_number, self.name, refused.code)
        return self.inbox.refuse(refused, self._outbox.release(refusal))

    def _stop_for(self, error: RollbackError) -> None:
        self.audit.record(RollbackDetected(what="inbox" if isinstance(error, ForgottenAnswersError) else "run"))
        self.fatal = error

    def _note_refused(self, code: str, request: bytes) -> None:
        self.audit.record(MessageRefused(code=code, size_bytes=len(request), digest=_sha256(request)))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
