"""The one exit of a site: what may leave is listed here, field by field, and nothing else leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from common.errors import IntegrityError
from common.messages import Message, Refusal, RoundReply
from common.wire import decode, encode

ReleaseClass = Literal["noised and charged", "public"]
"""What a field that leaves is: the output of a mechanism that was paid for, or nothing about patients at all.

There is no class for anything else, so that a raw value has no way to be listed.
"""

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
}
"""Every message and every field that may leave a site."""


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

    def release(self, message: RoundReply | Refusal) -> bytes:
        """Check a message against the list and turn it into the bytes that may leave.

        Raises:
            IntegrityError: For a kind or field that is not listed, another site's name, an update of another length
                or with NaN or infinity. Nothing is released or counted.
        """
        classes = _classes(message)
        frame = encode(message)
        if message.site != self._site:
            raise IntegrityError(f"only messages of site {self._site} may leave it")
        if isinstance(message, RoundReply) and message.update.shape != (self._dimension,):
            raise IntegrityError(f"an update must have {self._dimension} values, not shape {message.update.shape}")
        self._count(message, classes, len(frame))
        return frame

    def release_again(self, frame: bytes) -> bytes:
        """Let a kept answer leave once more, through the same checks.

        Raises:
            IntegrityError: When it is not an answer that `release` would let out.
        """
        return self.release(decode(frame, RoundReply, Refusal))

    def _count(self, message: Message, classes: Mapping[str, ReleaseClass], size: int) -> None:
        self._messages[type(message).__name__] += 1
        for name, release_class in classes.items():
            if release_class != "public":
                noised = getattr(message, name).nbytes
                self._bytes[release_class] += noised
                size -= noised
        self._bytes["public"] += size


def _classes(message: Message) -> Mapping[str, ReleaseClass]:
    # The exact type: a subclass may carry fields that nobody has listed.
    classes = RELEASE_CLASSES.get(type(message))
    if classes is None:
        raise IntegrityError(f"a {type(message).__name__} is not on the list of messages that may leave a site")
    if classes.keys() != {field.name for field in fields(message)}:
        raise IntegrityError(f"a {type(message).__name__} has fields that are not on the list of what may leave a site")
    return classes
