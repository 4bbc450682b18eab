"""A site's side of a round: one order in, one answer out."""

from __future__ import annotations

import hashlib
from typing import Protocol

import structlog

from client.charges import Charges
from client.outbox import Outbox, Released
from common.errors import CloisterError, ConfigError, IntegrityError
from common.fields import SITE_NAME, RefusalCode, Vector
from common.messages import Refusal, RoundOrder, RoundReply
from common.plan import Plan
from common.wire import decode, frame_bound

_log = structlog.get_logger()


class Trainer(Protocol):
    """What turns an order into an update that may be released."""

    def train(self, order: RoundOrder) -> Vector:
        """Run one round of local DP-SGD steps.

        Args:
            order: Checked, and charged for.

        Returns:
            The noised change of the trainable values, shape `[d]`.

        Raises:
            CloisterError: When there is no update to give; its message holds nothing about a record.
        """
        ...


class SiteNode:
    """Answers the coordinator's orders for one site in one run.

    Guarantees:
        Records are touched only after the order was checked and the round was charged on disk. Everything returned
        came through the outbox. At most one answer that depends on records exists for a round: the same order again
        gets the identical bytes, another order for that round gets a refusal. The coordinator is told a code; the
        reason in words goes to the site's own log.

    Edge cases:
        Training that fails, or gives NaN, infinity or another shape, is answered with `no-update`; the round stays
        charged and that refusal stays its answer. A kill, or an error that is not Cloister's own, answers nothing.

    Args:
        name: Name of the site.
        plan: The plan that this site takes part in.
        trainer: What does the training.
        charges: The book of this site and this plan.
        dimension: d, the number of trainable values.
        basis_dimension: b, the number of frozen values that an order may replace; an order may also leave them out.

    Raises:
        ConfigError: When the name cannot travel in a message.
        IntegrityError: When the book belongs to another site or plan.
    """

    def __init__(
        self, name: str, plan: Plan, trainer: Trainer, charges: Charges, *, dimension: int, basis_dimension: int = 0
    ) -> None:
        if SITE_NAME.fullmatch(name) is None:
            raise ConfigError(f"site name {name!r} must match {SITE_NAME.pattern}", hint="rename the site")
        if (charges.site, charges.plan_digest) != (name, plan.digest):
            raise IntegrityError(f"site {name} was given the book of charges of another site or plan")
        self._name = name
        self._plan_digest = charges.plan_digest
        self._trainer = trainer
        self._charges = charges
        self._outbox = Outbox(name, dimension)
        self._dimension = dimension
        self._basis_dimensions = (0, basis_dimension)
        self._limit_bytes = frame_bound(dimension + basis_dimension)

    @property
    def released(self) -> Released:
        """What this process has let out so far."""
        return self._outbox.released

    def answer(self, request: bytes) -> bytes:
        """Check, charge, train, answer.

        Args:
            request: The bytes that came in the coordinator's name.

        Returns:
            A frame: a `RoundReply`, or a `Refusal` with a code.

        Raises:
            IntegrityError: When this site's own book is damaged; nothing was released.
            OSError: When this site's disk does not take the charge or the answer; nothing was released.
        """
        try:
            order = decode(request, RoundOrder, limit_bytes=self._limit_bytes)
        except IntegrityError as error:
            return self._refuse(self._plan_digest, 0, "malformed", error.message)
        order_digest = hashlib.sha256(request).hexdigest()
        fault = self._fault(order, order_digest)
        if fault is not None:
            return self._refuse(order.plan_digest, order.round_number, fault, f"round {order.round_number}: {fault}")
        kept = self._charges.kept_answer(order_digest)
        if kept is not None:
            return self._outbox.release_again(kept)
        self._charges.charge(order.round_number, order_digest)
        answer = self._train(order)
        self._charges.keep_answer(answer)
        return answer

    def _fault(self, order: RoundOrder, order_digest: str) -> RefusalCode | None:
        if order.plan_digest != self._plan_digest:
            return "other-plan"
        if len(order.weights) != self._dimension or len(order.basis) not in self._basis_dimensions:
            return "wrong-shape"
        return self._charges.fault(order.round_number, order_digest)

    def _train(self, order: RoundOrder) -> bytes:
        try:
            update = self._trainer.train(order)
            return self._outbox.release(RoundReply(order.plan_digest, order.round_number, self._name, update))
        except CloisterError as error:
            return self._refuse(order.plan_digest, order.round_number, "no-update", error.message)

    def _refuse(self, plan_digest: str, round_number: int, code: RefusalCode, reason: str) -> bytes:
        _log.warning("order refused", site=self._name, round=round_number, code=code, reason=reason)
        return self._outbox.release(Refusal(plan_digest, round_number, self._name, code))
