"""A hospital's side of everything: one sealed request in, one sealed answer out."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog

from client.acceptance import Acceptance, NotTakingPartError
from client.base_cache import BaseCache
from client.inbox import ForgottenAnswersError, Inbox, NotFromCoordinatorError, Opened, UnfitEnvelopeError
from client.outbox import Outbox
from client.refusals import RequestRefusedError, refused_as
from client.verdict import Verdict
from common.audit import AuditLog
from common.audit_events import MessageRefused, MessageRepeated, Refused, RollbackDetected, RunEnded
from common.envelope import Envelope, open_envelope
from common.errors import (
    BudgetError,
    CloisterError,
    ConfigError,
    IntegrityError,
    RefusedError,
    RollbackError,
    TryAgainError,
)
from common.fields import RefusalCode
from common.messages import Message, Refusal, RoundOrder
from common.secagg.messages import MaskedOrder, RevealRequest, SessionInvite, SessionRoster, SurvivorSet
from common.signed_plan import SignedPlan
from common.study_messages import BaseChunk, BaseNeed, BaseQuery, PlanAnswer, PlanOffer, RunNoted, RunOver
from common.wire import decode, kind_of

_log = structlog.get_logger()

_STUDY_KINDS = (PlanOffer, BaseQuery, BaseChunk, RunOver)
_ROUND_KINDS = (RoundOrder, SessionInvite, SessionRoster, MaskedOrder, SurvivorSet, RevealRequest)


class Node(Protocol):
    """What answers the requests of one run; `client.node.SiteNode`."""

    def answer(self, request: bytes) -> bytes:
        """Check, charge, train, answer."""
        ...


Admit = Callable[[int], None]
"""Asked with the number of trained values before a record is read; raises where the site does not take part."""

OpenNode = Callable[[SignedPlan, BaseCache, Admit], Node]
"""Makes a node ready for an accepted plan whose base is here."""

OpenBase = Callable[[SignedPlan], BaseCache]

# What a kept reply may be that says nothing about records or keys of a run.
_HARMLESS: tuple[type[Message], ...] = (PlanAnswer, BaseNeed, RunNoted, Refusal)


@dataclass(eq=False, repr=False)
class Site:
    """Answers whatever comes in the coordinator's name.

    Guarantees:
        What the pinned coordinator did not sign gets no answer, and neither does anything when this site's own files
        are not what they should be. The policy is asked for every request of a run, once more when the number of
        trained values is known, and the full cost is in the ledger before a record is read. A refusal travels as a
        code; its reason stays in this site's log. The same request gets the identical bytes, or, where the site does
        not take part any more and they are about records, none.

    Edge cases:
        A node is made ready when the base is complete, or at the first request after a restart; that takes as long as
        loading the base and computing the frozen layers. What fails in it is answered with a code, and tried again at
        the next request. One model is in memory at a time: where another run begins, or this one is over, it goes, and
        comes back from disk if it is asked again. At the end of a run a base that is here in part goes, too.

    Attributes:
        fatal: Set when an older copy of this site's files was found: send what `answer` returned, and stop.

    Args:
        name: Of the site.
        inbox: Who speaks, and in which order.
        acceptance: Policy and ledger.
        audit: Where everything is written down.
        open_base: The base of a plan.
        open_node: Makes a node ready.
        working: Told of each request that a node is about to answer: its plan and round.
    """

    name: str
    inbox: Inbox
    acceptance: Acceptance
    audit: AuditLog
    open_base: OpenBase
    open_node: OpenNode
    working: Callable[[str, int], None] = lambda *_: None
    fatal: RollbackError | None = field(default=None, init=False)
    _outbox: Outbox = field(init=False)
    _bases: dict[str, BaseCache] = field(default_factory=dict, init=False)
    _nodes: dict[str, Node] = field(default_factory=dict, init=False)
    _said: tuple[str, Verdict] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._outbox = Outbox(self.name, 0, self.audit.record)

    def answer(self, request: bytes) -> bytes | None:
        """The sealed answer to a sealed request; None where none is due.

        Raises:
            IntegrityError: When this site's own files are damaged; nothing was released.
            TryAgainError: When another process holds one of them for long; nothing was released, and the same request
                may come again.
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
            return self._repeat(opened.envelope.plan_digest, opened.kept)
        return self.inbox.reply(opened, self._handle(opened))

    def _repeat(self, plan_digest: str, kept: bytes) -> bytes | None:
        """The kept reply; nothing where a person or the policy has taken the plan back, and it is part of a run."""
        if kind_of(bytes(open_envelope(kept, len(kept)).body)) not in _HARMLESS:
            try:
                self.acceptance.check(plan_digest)
            except RefusedError as error:
                _log.warning("a kept answer stays here", site=self.name, reason=error.message)
                return None
        self.audit.record(MessageRepeated(digest=_sha256(kept), size_bytes=len(kept), recipient="coordinator"))
        return kept

    # --- what a request asks ---

    def _handle(self, opened: Opened) -> bytes:
        envelope = opened.envelope
        try:
            message = decode(bytes(envelope.body), *_STUDY_KINDS, *_ROUND_KINDS)
        except IntegrityError as error:
            return self._refuse(envelope.plan_digest, 0, "malformed", error.message)
        number = getattr(message, "round_number", 0)
        try:
            _check_about(message, number, envelope)
            return self._serve(message, bytes(envelope.body))
        except RequestRefusedError as error:
            return self._refuse(envelope.plan_digest, number, error.code, error.message)
        except (NotTakingPartError, BudgetError) as error:
            return self._refuse(envelope.plan_digest, number, "not-taking-part", error.message)
        except RefusedError as error:
            return self._refuse(envelope.plan_digest, number, "other-plan", error.message)
        except RollbackError as error:
            self._stop_for(error)
            return self._refuse(envelope.plan_digest, number, "rolled-back", error.message)

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
        with refused_as("malformed", IntegrityError):
            signed = self.acceptance.read(offer.document.tobytes())
        if signed.digest != offer.plan_digest:
            raise RequestRefusedError("other-plan", "the offer holds another plan than it names")
        with refused_as("not-taking-part", RefusedError):
            verdict = self.acceptance.offer(signed)
        if (said := (signed.digest, verdict)) != self._said:  # it is offered until a person has answered
            self._said = said
            _log.info("plan offered", plan=signed.digest, name=signed.plan.name, state=verdict.state)
        if verdict.state == "refused":
            self.audit.record(Refused(plan=signed.digest, codes=verdict.codes))
        return self._outbox.release(PlanAnswer(offer.plan_digest, self.name, verdict.state, verdict.codes))

    def _take_base(self, message: BaseQuery | BaseChunk) -> bytes:
        """Take in a piece of the base; when it is whole, make the node ready before saying so."""
        signed = self.acceptance.check(message.plan_digest)
        base = self._base(signed)
        with refused_as("not-ready", IntegrityError):
            need = base.need()
        if isinstance(message, BaseChunk):
            with refused_as("malformed", IntegrityError):
                need = base.receive(message)
        if need.state == "complete" and signed.digest not in self._nodes:
            self._make_ready(signed, base)
        return self._outbox.release(need)

    def _take_part(self, message: Any, body: bytes) -> bytes:  # noqa: ANN401 - as above
        signed = self.acceptance.check(message.plan_digest)
        self.working(signed.digest, getattr(message, "round_number", 0))
        if signed.digest not in self._nodes:
            base = self._base(signed)
            with refused_as("not-ready", IntegrityError):
                is_here = base.find() is not None
            if not is_here:
                raise RequestRefusedError("not-ready", "the base model is not here")
            self._make_ready(signed, base)
        return self._nodes[signed.digest].answer(body)

    def _tidy(self, message: RunOver) -> bytes:
        """Let go of a run: its model, and its base where it is here in part."""
        signed = self.acceptance.offered(message.plan_digest)
        if signed is not None and self.acceptance.is_reserved(signed.digest):
            self.audit.record(RunEnded(plan=signed.digest, outcome=message.outcome))
        if message.plan_digest in self._nodes:
            self._forget_nodes()
        if signed is not None:
            with suppress(RequestRefusedError):  # a base that nobody would take in left nothing here
                self._base(signed).discard()
            self._bases.pop(signed.digest, None)
        _log.info("run over", plan=message.plan_digest, outcome=message.outcome)
        return self._outbox.release(RunNoted(message.plan_digest, self.name))

    # --- making ready ---

    def _base(self, signed: SignedPlan) -> BaseCache:
        if signed.digest not in self._bases:
            with refused_as("not-ready", ConfigError):
                self._bases[signed.digest] = self.open_base(signed)
        return self._bases[signed.digest]

    def _make_ready(self, signed: SignedPlan, base: BaseCache) -> None:
        """Open the study; what goes wrong with it is a refusal to send."""
        self._forget_nodes()
        try:
            self._nodes[signed.digest] = self.open_node(signed, base, partial(self._admit, signed))
        except (RefusedError, BudgetError, RollbackError, TryAgainError):
            raise
        except CloisterError as error:
            raise RequestRefusedError("not-ready", error.message) from None
        except (MemoryError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # A plan may be too large for this machine, or its base unfit; what torch says about it may hold anything.
            kind = type(error).__name__
            raise RequestRefusedError("not-ready", f"the plan's model does not fit this machine ({kind})") from None

    def _admit(self, signed: SignedPlan, trained_values: int) -> None:
        """Ask the policy with all that it can know, then set the cost aside; records come after."""
        self.acceptance.check(signed.digest, trained_values)
        self.acceptance.reserve(signed)

    def _forget_nodes(self) -> None:
        if self._nodes:
            self._nodes.clear()
            # A model's hooks refer to it in circles; without this, two of them would be in memory for a while.
            gc.collect()

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


def _check_about(message: Any, round_number: int, envelope: Envelope) -> None:  # noqa: ANN401 - as above
    """What is said must be about what the envelope says that it is about.

    Raises:
        RequestRefusedError: When it is not.
    """
    if message.plan_digest != envelope.plan_digest:
        raise RequestRefusedError("other-plan", "envelope and request name two plans")
    if round_number != envelope.round_number:
        raise RequestRefusedError("malformed", "envelope and request name two rounds")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
