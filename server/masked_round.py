"""A round of masked numbers: session, order, replies, consent, reveal, sum; docs/protocol.md numbers the steps."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog

from common.errors import ProtocolError
from common.plan import Plan
from common.privacy.mechanism import mechanism_of
from common.secagg.fixed_point import restore
from common.secagg.masking import model_digest
from common.secagg.messages import Consent, MaskedOrder, MaskedReply, Reveal
from common.transport import Transport
from common.wire import encode, frame_bound
from server.aggregation.base import Vector
from server.gather import Gathered
from server.replies import Exchanges
from server.secagg import CoordinatorRound, Session
from server.session_file import (
    PendingSum,
    forget_session,
    load_pending,
    load_session,
    save_pending,
    save_session,
)
from server.session_setup import open_session
from server.state import AbortReason, FaultKind

_log = structlog.get_logger()

SETUP_ATTEMPTS = 3
"""A set-up that not every site has finished is tried again so many times, because whoever is missing sits out a
session; the last attempt counts if it has enough sites."""


class MaskedGatherer:
    """Asks the sites for masked numbers and opens the sum, and only the sum.

    Guarantees:
        The session, and a sum that its survivors are told of, are on disk before anything is sent that depends on them,
        so that a coordinator that was killed between two messages goes on with the same ones. What comes out is the
        exact sum over the survivors, at least the threshold, or nothing; after nothing, the next round opens a new
        session, in which sites that were lost can take part again.

    Args:
        plan: The plan that every site holds.
        sites: Names of the sites.
        transport: How they are reached.
        folder: Run folder; must exist.
    """

    def __init__(self, plan: Plan, sites: tuple[str, ...], transport: Transport, folder: Path) -> None:
        self._plan = plan
        self._plan_digest = plan.digest
        self._sites = sites
        self._transport = transport
        self._folder = folder
        self._session = load_session(folder, plan)

    def gather(self, round_number: int, weights: npt.NDArray[np.float32], basis: npt.NDArray[np.float32]) -> Gathered:
        """As `server.gather.Gatherer`."""
        exchanges = Exchanges(self._transport, self._plan_digest, round_number)
        session = self._session_for(round_number, exchanges)
        if session is None:
            return _gathered(exchanges, _Opened(None, 0, "no session"))
        order = MaskedOrder(self._plan_digest, session.id, round_number, session.cohort, weights, basis)
        opened = self._open_sum(session, order, exchanges)
        if opened.abort:
            self._session = None
            forget_session(self._folder)
        return _gathered(exchanges, opened)

    def _session_for(self, round_number: int, exchanges: Exchanges) -> Session | None:
        if self._session is None or round_number not in self._session.rounds:
            self._session = self._new_session(round_number, exchanges)
            if self._session is not None:
                save_session(self._folder, self._session)
        return self._session

    def _new_session(self, round_number: int, exchanges: Exchanges) -> Session | None:
        session = None
        for _ in range(SETUP_ATTEMPTS):
            session = open_session(self._plan, self._sites, secrets.token_hex(32), round_number, exchanges)
            if session is not None and len(session.cohort) == self._plan.sites:
                break
        return session

    def _open_sum(self, session: Session, order: MaskedOrder, exchanges: Exchanges) -> _Opened:
        current = CoordinatorRound(session, order, model_digest(order.weights, order.basis))
        threshold = self._plan.parameters.threshold
        self._add_replies(current, order, exchanges)
        if len(current.survivors) < threshold:
            return _Opened(None, len(current.survivors), "too few inputs")
        _collect_consents(current, order, exchanges)
        if current.agreed < threshold:
            return _Opened(None, len(current.survivors), "too few consents")
        _collect_reveals(current, order, exchanges)
        if not current.enough_shares:
            return _Opened(None, len(current.survivors), "too few shares")
        try:
            total = current.total()
        except ProtocolError as error:
            _log.warning("secure aggregation gave up", round=order.round_number, reason=error.message)
            return _Opened(None, len(current.survivors), "bad shares")
        return _Opened(self._decoded(total), len(current.survivors), "")

    def _add_replies(self, current: CoordinatorRound, order: MaskedOrder, exchanges: Exchanges) -> None:
        """Steps 5 and 6; the finished sum is saved before its survivors are told."""
        frame = encode(order)
        order_digest = hashlib.sha256(frame).hexdigest()
        pending = load_pending(self._folder, order_digest)
        if pending is not None:
            current.restore(pending.survivors, pending.signatures, pending.masked_total)
            return

        def fault_of(reply: MaskedReply) -> FaultKind | None:
            if reply.masked.shape != order.weights.shape:
                return "wrong-shape"
            return _round_fault(order, reply) or (None if current.is_for_this(reply) else "bad-signature")

        requests = dict.fromkeys(order.cohort, frame)
        limit = frame_bound(len(order.weights))
        for reply in exchanges.ask(requests, MaskedReply, fault_of, limit_bytes=limit):
            current.add(reply)
        save_pending(
            self._folder, PendingSum(order_digest, current.survivors, current.signatures, current.masked_total)
        )

    def _decoded(self, total: npt.NDArray[np.int64]) -> Vector:
        """What the server rule is given: the mean gradient by public constants, or the sum of updates."""
        if self._plan.mode == "distributed":
            return mechanism_of(self._plan).decode(total)
        return restore(total, self._plan.sites, self._plan.secure_aggregation.update_limit)


@dataclass(frozen=True, eq=False)
class _Opened:
    """What came of a round's sum."""

    total: Vector | None
    survivors: int
    abort: AbortReason


def _gathered(exchanges: Exchanges, opened: _Opened) -> Gathered:
    return Gathered(
        total=opened.total,
        survivors=opened.survivors,
        refusals=exchanges.refusals,
        faults=exchanges.faults,
        bytes_out=exchanges.bytes_out,
        bytes_in=exchanges.bytes_in,
        abort=opened.abort,
    )


def _round_fault(order: MaskedOrder, answer: MaskedReply | Consent | Reveal) -> FaultKind | None:
    return None if (answer.session, answer.round_number) == (order.session, order.round_number) else "other-round"


def _collect_consents(current: CoordinatorRound, order: MaskedOrder, exchanges: Exchanges) -> None:
    """Steps 7 and 8: every site of the cohort is asked, also one whose reply was lost."""

    def fault_of(consent: Consent) -> FaultKind | None:
        return _round_fault(order, consent) or (None if current.is_good(consent) else "bad-signature")

    requests = dict.fromkeys(order.cohort, encode(current.survivor_set()))
    for consent in exchanges.ask(requests, Consent, fault_of, limit_bytes=frame_bound(0)):
        current.agree(consent)


def _collect_reveals(current: CoordinatorRound, order: MaskedOrder, exchanges: Exchanges) -> None:
    """Steps 9 and 10."""

    def fault_of(reveal: Reveal) -> FaultKind | None:
        return _round_fault(order, reveal) or (None if current.fits(reveal) else "wrong-shape")

    requests = {site: encode(current.reveal_request(site)) for site in order.cohort}
    # A share has 33 bytes: ten float32 values are more than enough for each.
    for reveal in exchanges.ask(requests, Reveal, fault_of, limit_bytes=frame_bound(10 * len(order.cohort))):
        current.open(reveal)
