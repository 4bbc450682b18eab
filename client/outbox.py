"""The one exit of a site: what may leave is listed here, field by field, and nothing else leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import numpy.typing as npt

from common.errors import IntegrityError
from common.messages import Message, Refusal, RoundReply
from common.secagg.messages import Consent, MaskedReply, Reveal, SessionKeys, SessionShares, SiteMessage
from common.study_messages import BaseNeed, PlanAnswer, RunNoted, SiteStudyMessage
from common.wire import decode, encode

ReleaseClass = Literal["masked", "noised and charged", "key material", "public"]
"""What a field that leaves is.

masked: charged for, and readable in the sum over the sites alone. noised and charged: the output of a mechanism that
was paid for. key material: random, and about nobody; what it opens is for `client.secagg` to say. public: nothing about
patients at all.

There is no class for anything else, so that a raw value has no way to be listed.
"""

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
    """Checks, encodes and counts every message that leaves a site.

    Guarantees:
        What it returns is a frame of a listed kind with every field listed, in the name of this site, and with an
        update that is finite and of the expected length.

    Edge cases:
        Counts begin with the process, and a message counts when it is handed out: if it is lost between here and the
        network, the count is too high, never too low.

    Args:
        site: Name of this site.
        dimension: Number of values of an update.
    """

    def __init__(self, site: str, dimension: int) -> None:
        self._site = site
        self._dimension = dimension
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
                or with NaN or infinity. Nothing is released or counted.
        """
        classes = _classes(message)
        frame = encode(message)
        if message.site != self._site:
            raise IntegrityError(f"only messages of site {self._site} may leave it")
        values = _values(message)
        if values is not None and values.shape != (self._dimension,):
            raise IntegrityError(f"an update must have {self._dimension} values, not shape {values.shape}")
        self._count(message, classes, len(frame))
        return frame

    def release_again(self, frame: bytes) -> bytes:
        """Let a kept answer leave once more, through the same checks.

        Raises:
            IntegrityError: When it is not an answer that `release` would let out.
        """
        return self.release(cast(Leaving, decode(frame, RoundReply, MaskedReply, Refusal)))

    def _count(self, message: Message, classes: Mapping[str, ReleaseClass], size: int) -> None:
        self._messages[type(message).__name__] += 1
        for name, release_class in classes.items():
            if release_class != "public":
                carried = getattr(message, name).nbytes
                self._bytes[release_class] += carried
                size -= carried
        self._bytes["public"] += size


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
