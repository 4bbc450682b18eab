"""The one exit of a site: what may leave is listed here, field by field, and nothing else leaves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy.typing as npt

from common.audit_events import MessageOut
from common.audit_fields import ReleaseClass, most_revealing
from common.errors import IntegrityError
from common.messages import Message, Refusal, RoundReply
from common.secagg.messages import Consent, MaskedReply, Reveal, SessionKeys, SessionShares, SiteMessage
from common.study_messages import BaseNeed, PlanAnswer, RunNoted, SiteStudyMessage
from common.wire import decode, encode

COORDINATOR = "coordinator"

_SESSION: Mapping[str, ReleaseClass] = {"plan_digest": "public", "session": "public"}
_ROUND: Mapping[str, ReleaseClass] = {**_SESSION, "round_number": "public"}

RELEASE_CLASSES: Mapping[type[Message], Mapping[str, ReleaseClass]] = {
    RoundReply: {
        "plan_digest": "public",
        "round_number": "public",
        "site": "public",
        "update": "noised and charged",
    },
    Refusal: {
        "plan_digest": "public",
        "round_number": "public",
        "site": "public",
        # `no-update` is the one code that training can cause; it is kept as the answer of a round that stays charged.
        "code": "public",
    },
    SessionKeys: {
        **_SESSION,
        "first_round": "public",
        "rounds": "public",
        "site": "public",
        "keys": "key material",
        "signature": "key material",
    },
    SessionShares: {**_SESSION, "site": "public", "recipients": "public", "sealed": "key material"},
    MaskedReply: {**_ROUND, "site": "public", "masked": "masked", "signature": "key material"},
    Consent: {**_ROUND, "site": "public", "signature": "key material"},
    Reveal: {**_ROUND, "site": "public", "owners": "public", "shares": "key material"},
    # Said before a record is read or after the last: state and codes follow from plan, policy and budget.
    PlanAnswer: {"plan_digest": "public", "site": "public", "state": "public", "codes": "public"},
    BaseNeed: {
        "plan_digest": "public",
        "site": "public",
        "state": "public",
        "file_number": "public",
        "chunk_number": "public",
    },
    RunNoted: {"plan_digest": "public", "site": "public"},
}
"""Every message and every field that may leave a site."""


Leaving = RoundReply | Refusal | SiteMessage | SiteStudyMessage


@dataclass(frozen=True)
class Released:
    """What one process has let out so far: messages by kind, bytes by release class (the frame around it is public)."""

    messages: Mapping[str, int]
    bytes_by_class: Mapping[ReleaseClass, int]


class Outbox:
    """Checks, encodes, records and counts every message that leaves a site.

    Guarantees:
        What it returns is a frame of a listed kind with every field listed, in the name of this site, and with an
        update that is finite and of the expected length. `record` has returned before a frame does, so that nothing
        leaves which is not in the audit log.

    Edge cases:
        Counts begin with the process, and a message counts when it is handed out: if it is lost between here and the
        network, count and record are too high, never too low. When `record` raises, nothing is handed out.

    Args:
        site: Name of this site.
        dimension: Number of values of an update.
        record: Told of each message before it may leave, as `AuditLog.record` is; must be durable when it returns.
        recipient: Whom the messages are for.
    """

    def __init__(
        self,
        site: str,
        dimension: int,
        record: Callable[[MessageOut], object] | None = None,
        *,
        recipient: str = COORDINATOR,
    ) -> None:
        self._site = site
        self._dimension = dimension
        self._record = record
        self._recipient = recipient
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[ReleaseClass] = Counter()

    @property
    def released(self) -> Released:
        """A snapshot of the counts."""
        return Released(dict(self._messages), dict(self._bytes))

    def release(self, message: Leaving) -> bytes:
        """Check a message against the list and turn it into the bytes that may leave.

        Raises:
            IntegrityError: For a kind or field that is not listed, another site's name, an update of another length
                or with NaN or infinity. Nothing is released, recorded or counted.
        """
        classes = _classes(message)
        frame = encode(message)
        if message.site != self._site:
            raise IntegrityError(f"only messages of site {self._site} may leave it")
        values = _values(message)
        if values is not None and values.shape != (self._dimension,):
            raise IntegrityError(f"an update must have {self._dimension} values, not shape {values.shape}")
        sizes = _bytes_by_class(message, classes, len(frame))
        if self._record is not None:
            self._record(self._departure(message, sizes, frame))
        self._messages[type(message).__name__] += 1
        self._bytes.update(sizes)
        return frame

    def release_again(self, frame: bytes) -> bytes:
        """Let a kept answer leave once more, through the same checks.

        Raises:
            IntegrityError: When it is not an answer that `release` would let out.
        """
        return self.release(cast(Leaving, decode(frame, RoundReply, MaskedReply, Refusal)))

    def _departure(self, message: Leaving, sizes: dict[ReleaseClass, int], frame: bytes) -> MessageOut:
        return MessageOut(
            message=type(message).__name__,
            plan=message.plan_digest,
            round_number=getattr(message, "round_number", 0),
            release_class=most_revealing(sizes),
            bytes_by_class=sizes,
            size_bytes=len(frame),
            digest=hashlib.sha256(frame).hexdigest(),
            recipient=self._recipient,
        )


def _bytes_by_class(message: Leaving, classes: Mapping[str, ReleaseClass], size: int) -> dict[ReleaseClass, int]:
    """Bytes of a frame by what they are; the frame around the fields is public."""
    sizes: Counter[ReleaseClass] = Counter()
    for name, release_class in classes.items():
        if release_class != "public":
            sizes[release_class] += getattr(message, name).nbytes
    return {**sizes, "public": size - sizes.total()}


def _values(message: Leaving) -> npt.NDArray[Any] | None:
    """What a message carries of the training, if anything."""
    if isinstance(message, RoundReply):
        return message.update
    return message.masked if isinstance(message, MaskedReply) else None


def _classes(message: Message) -> Mapping[str, ReleaseClass]:
    # The exact type: a subclass may carry fields that nobody has listed.
    classes = RELEASE_CLASSES.get(type(message))
    if classes is None:
        raise IntegrityError(f"a {type(message).__name__} is not on the list of messages that may leave a site")
    if classes.keys() != {field.name for field in fields(message)}:
        raise IntegrityError(f"a {type(message).__name__} has fields that are not on the list of what may leave a site")
    return classes
