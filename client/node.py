"""A site's side of a run: one request in, one answer out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import structlog

from client.charges import Charges
from client.outbox import Leaving, Outbox, Released
from client.secagg import SiteHalf
from client.session_view import RoundTerms
from common.audit_events import MessageOut
from common.errors import CloisterError, ConfigError, IntegrityError
from common.fields import SITE_NAME, RefusalCode
from common.identity import SIGNATURE_BYTES
from common.messages import Order, Refusal, RoundOrder, RoundReply
from common.plan import Plan
from common.secagg.keys import keys_size
from common.secagg.messages import (
    CoordinatorMessage,
    MaskedOrder,
    RevealRequest,
    SessionInvite,
    SessionRoster,
    SurvivorSet,
)
from common.secagg.sealing import SEALED_BYTES
from common.wire import decode, frame_bound

_log = structlog.get_logger()

_MASKED_KINDS = (SessionInvite, SessionRoster, MaskedOrder, SurvivorSet, RevealRequest)


class Trainer(Protocol):
    """What turns an order into numbers that may leave: as they are, or under masks where the plan has them."""

    def train(self, order: Order) -> npt.NDArray[Any]:
        """Do one round's work.

        Args:
            order: Checked, and charged for.

        Returns:
            The noised change of the trainable values as float32; whole numbers as int64 where the plan masks. `[d]`

        Raises:
            CloisterError: When there is nothing to give; its message holds nothing about a record.
        """
        ...


class SiteNode:
    """Answers the coordinator's requests for one site in one run.

    Guarantees:
        Records are touched only after the order was checked and the round was charged on disk. Everything returned
        came through the outbox. At most one answer that depends on records exists for a round: the same order again
        gets the identical bytes, another order for that round gets a refusal. In a round of masked numbers the survivor
        set is on disk before anything signed or revealed for it leaves, and no other set is signed or revealed for. The
        coordinator is told a code; the reason in words goes to the site's own log.

    Edge cases:
        Training that fails, or gives NaN, infinity or another shape, is answered with `no-update`; the round stays
        charged and that refusal stays its answer. A kill, or an error that is not Cloister's own, answers nothing.

    Args:
        plan: The plan that this site takes part in.
        trainer: What does the training.
        charges: The book of this site and this plan; it names the site.
        half: The site's half of secure aggregation; needed exactly where the plan masks.
        dimension: d, the number of trainable values.
        basis_dimension: b, the number of frozen values that an order may replace; an order may also leave them out.
        record: Told of each message before it may leave; see `Outbox`.

    Raises:
        ConfigError: When the name cannot travel in a message, or the half is missing or not wanted.
        IntegrityError: When the book belongs to another plan.
    """

    def __init__(  # noqa: PLR0913 - each of them is a part of the site
        self,
        plan: Plan,
        trainer: Trainer,
        charges: Charges,
        half: SiteHalf | None = None,
        *,
        dimension: int,
        basis_dimension: int = 0,
        record: Callable[[MessageOut], object] | None = None,
    ) -> None:
        name = charges.site
        if SITE_NAME.fullmatch(name) is None:
            raise ConfigError(f"site name {name!r} must match {SITE_NAME.pattern}", hint="rename the site")
        if (half is not None) != plan.masked:
            raise ConfigError(f"site {name} needs its half of secure aggregation exactly where the plan masks updates")
        if charges.plan_digest != plan.digest:
            raise IntegrityError(f"site {name} was given the book of charges of another plan")
        self._name = name
        self._plan_digest = charges.plan_digest
        self._trainer = trainer
        self._charges = charges
        self._half = half
        self._outbox = Outbox(name, dimension, record)
        self._dimension = dimension
        self._basis_dimensions = (0, basis_dimension)
        self._limit_bytes = _longest_request(plan, dimension + basis_dimension)

    @property
    def released(self) -> Released:
        """What this process has let out so far."""
        return self._outbox.released

    def answer(self, request: bytes) -> bytes:
        """Check, charge, train, answer.

        Args:
            request: The bytes that came in the coordinator's name.

        Returns:
            A frame: what was asked for, or a `Refusal` with a code.

        Raises:
            IntegrityError: When this site's own book is damaged; nothing was released.
            OSError: When this site's disk does not take the charge or the answer; nothing was released.
        """
        kinds = (RoundOrder,) if self._half is None else _MASKED_KINDS
        try:
            message = decode(request, *kinds, limit_bytes=self._limit_bytes)
        except IntegrityError as error:
            return self._refuse(self._plan_digest, 0, "malformed", error.message)
        number = getattr(message, "round_number", 0)
        if message.plan_digest != self._plan_digest:
            return self._refuse(message.plan_digest, number, "other-plan", f"round {number}: other-plan")
        try:
            return self._serve(message, request)
        except SiteHalf.REFUSALS as error:
            return self._refuse(self._plan_digest, number, error.code, error.message)

    def _serve(self, message: Any, request: bytes) -> bytes:  # noqa: ANN401 - one of the kinds that were decoded
        if self._half is None:
            return self._work(message, request, None)
        return self._serve_masked(self._half, message, request)

    def _serve_masked(self, half: SiteHalf, message: CoordinatorMessage, request: bytes) -> bytes:
        match message:
            case SessionInvite():
                return self._release(half.keys(message, self._charges.last_round))
            case SessionRoster():
                return self._release(half.shares(message))
            case MaskedOrder():
                return self._work(message, request, half)
            case _:
                return self._agree(half, message)

    # --- an order ---

    def _work(self, order: Order, request: bytes, half: SiteHalf | None) -> bytes:
        order_digest = hashlib.sha256(request).hexdigest()
        fault = self._fault(order, order_digest)
        if fault is not None:
            return self._refuse_round(order.round_number, fault)
        kept = self._charges.kept_answer(order_digest)
        if kept is not None:
            return self._outbox.release_again(kept)
        terms = half.terms(order) if half is not None and isinstance(order, MaskedOrder) else RoundTerms("", ())
        self._charges.charge(order.round_number, order_digest, terms.context, terms.cohort)
        answer = self._train(order, half, terms)
        self._charges.keep_answer(answer)
        return answer

    def _fault(self, order: Order, order_digest: str) -> RefusalCode | None:
        if len(order.weights) != self._dimension or len(order.basis) not in self._basis_dimensions:
            return "wrong-shape"
        return self._charges.fault(order.round_number, order_digest)

    def _train(self, order: Order, half: SiteHalf | None, terms: RoundTerms) -> bytes:
        try:
            values = self._trainer.train(order)
            if half is not None and isinstance(order, MaskedOrder):
                _check_maskable(values, self._dimension)
                return self._release(half.mask(order, terms, values))
            return self._release(RoundReply(order.plan_digest, order.round_number, self._name, values))
        except CloisterError as error:
            return self._refuse(order.plan_digest, order.round_number, "no-update", error.message)

    # --- the survivors of a round ---

    def _agree(self, half: SiteHalf, request: SurvivorSet | RevealRequest) -> bytes:
        """Sign or reveal for a survivor set, once it is written down as the only one of its round."""
        fault = self._charges.survivors_fault(request.round_number, request.survivors)
        if fault is not None:
            return self._refuse_round(request.round_number, fault)
        terms = RoundTerms(self._charges.context, self._charges.cohort)
        half.check_survivors(request, terms)
        message = half.consent(request, terms) if isinstance(request, SurvivorSet) else half.reveal(request, terms)
        self._charges.agree_to(request.round_number, request.survivors)
        return self._release(message)

    # --- the way out ---

    def _release(self, message: Leaving) -> bytes:
        return self._outbox.release(message)

    def _refuse_round(self, round_number: int, code: RefusalCode) -> bytes:
        return self._refuse(self._plan_digest, round_number, code, f"round {round_number}: {code}")

    def _refuse(self, plan_digest: str, round_number: int, code: RefusalCode, reason: str) -> bytes:
        _log.warning("request refused", site=self._name, round=round_number, code=code, reason=reason)
        return self._release(Refusal(plan_digest, round_number, self._name, code))


def _check_maskable(values: object, dimension: int) -> None:
    """Refuse what no mask fits: NaN, infinity and fractions are no whole numbers, and larger ones would wrap round.

    Raises:
        IntegrityError: Naming the rule, and never a value.
    """
    if not (
        isinstance(values, np.ndarray)
        and (values.dtype, values.shape) == (np.int64, (dimension,))
        and np.array_equal(values, values.astype(np.int32))
    ):
        raise IntegrityError(f"numbers to be masked must be {dimension} whole numbers of 32 bits")


def _longest_request(plan: Plan, values: int) -> int:
    """Bytes that no request of this plan exceeds; a longer one is refused before it is looked at."""
    if not plan.masked:
        return frame_bound(values)
    roster = plan.sites * (keys_size(plan.secure_aggregation.session_rounds) + SIGNATURE_BYTES)
    reveal = plan.sites * (SIGNATURE_BYTES + SEALED_BYTES)
    return max(frame_bound(values), frame_bound(0) + max(roster, reveal))
