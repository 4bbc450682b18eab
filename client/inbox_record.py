"""What a site remembers of its conversation with the coordinator: the last request, and the reply to it.

Each request has a number that only grows. One small file says which was the last and whether it was answered; the reply
lies in a file beside it. What is written when, for one request:

    begin        record: the last request is this one, not answered yet; from now on all older ones are past
    (work)
    keep_reply   the sealed reply, in its own file; then the record: answered, and the reply's SHA-256
    (send)       only now may the reply leave

Killed before the first write, the request is new again. Killed before the last one, it is handled afresh when it comes
again, and the first reply, which never left, is overwritten. That is safe because the layers below stand on books of
their own: `client.charges` charges an order once and gives the same bytes for it. Killed after the last write, the same
request gets the identical reply from its file, and nothing is handled.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from client.sealed_file import read_entry, write_private, write_sealed
from common.config import StrictConfig
from common.errors import IntegrityError, RefusedError

RENEWAL_HINT = "never put an older copy in its place: enrol this site anew, with a new identity"

Count = Annotated[int, Field(ge=0)]


class _Entry(StrictConfig):
    """Where the conversation stands.

    `last_request` is the digest of the request `last_sequence`; `last_reply` is the SHA-256 of the sealed reply to it,
    empty while it has none; `answered` is the highest sequence that was ever answered.
    """

    format_version: Literal[1] = 1
    federation: str
    site: str
    last_sequence: Count = 0
    last_request: str = ""
    last_reply: str = ""
    answered: Count = 0

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        has_begun = self.last_sequence > 0
        is_answered = has_begun and self.answered == self.last_sequence
        fits = (bool(self.last_request), bool(self.last_reply)) == (has_begun, is_answered)
        if not fits or self.answered > self.last_sequence:
            raise ValueError("the numbers contradict each other")
        return self


class InboxRecord:
    """The durable record of one site in one federation.

    Guarantees:
        Sequences only grow. One request has one sequence, and at most one reply is ever kept for it, on disk before
        `keep_reply` returns. When a write fails, the object claims no more than it did before.

    Edge cases:
        Only the last reply is kept, and stays on disk until the next one: it is what left already. One process at a
        time may use the files; a second one is noticed at its first write.

    Args:
        path: The record; the reply lies beside it, with the suffix `.reply`. The folder must exist.
        federation: 64 hexadecimal digits.
        site: Name of the site.
        must_exist: Set when the site has taken part before, so that a missing record is a lost one.

    Raises:
        IntegrityError: When the record is damaged, lost, or belongs to another federation or site, or the reply that it
            tells of is damaged or lost. It is never begun anew.
    """

    def __init__(self, path: Path, federation: str, site: str, *, must_exist: bool = False) -> None:
        self._path = path
        self._reply_path = path.with_suffix(".reply")
        self._federation = federation
        self._site = site
        if path.exists():
            self._entry = self._read()
            self._refuse_without_reply()
        elif must_exist:
            raise self._unfit("is missing")
        else:
            self._write(_Entry(federation=federation, site=site))

    @property
    def last_sequence(self) -> int:
        """Number of the last request; 0 before the first."""
        return self._entry.last_sequence

    @property
    def last_request(self) -> str:
        """Digest of the last request; empty before the first."""
        return self._entry.last_request

    @property
    def answered(self) -> int:
        """The highest number that was answered; 0 before the first."""
        return self._entry.answered

    def begin(self, sequence: int, request: str) -> None:
        """Write down that a newer request is the last one, before anything is done for it.

        Raises:
            RefusedError: When it is not newer.
        """
        self._check_unchanged()
        if sequence <= self._entry.last_sequence:
            raise RefusedError(f"request {sequence} comes after request {self._entry.last_sequence}")
        about = {"last_sequence": sequence, "last_request": request, "last_reply": ""}
        self._write(self._entry.model_copy(update=about))

    def keep_reply(self, request: str, reply: bytes) -> None:
        """Write down the one reply to the last request; only then may it leave.

        Raises:
            RefusedError: When this is not the last request, or it has its reply. The kept one stays.
        """
        self._check_unchanged()
        waits = self._entry.last_sequence > 0 and not self._entry.last_reply
        if not waits or request != self._entry.last_request:
            raise RefusedError(f"request {self._entry.last_sequence} is the last one, and this reply is not for it")
        write_private(self._reply_path, reply)
        done = {"last_reply": hashlib.sha256(reply).hexdigest(), "answered": self._entry.last_sequence}
        self._write(self._entry.model_copy(update=done))

    def kept_reply(self) -> bytes | None:
        """The reply to the last request, byte for byte; None while it has none.

        Raises:
            IntegrityError: When its file is missing or damaged, or the record was changed by somebody else.
        """
        self._check_unchanged()
        if not self._entry.last_reply:
            return None
        reply = self._reply_path.read_bytes() if self._reply_path.exists() else b""
        if hashlib.sha256(reply).hexdigest() != self._entry.last_reply:
            raise IntegrityError(
                f"the kept reply {self._reply_path} is missing or damaged",
                hint="this request has no answer any more; the site goes on with the coordinator's next one",
            )
        return reply

    def _refuse_without_reply(self) -> None:
        """The reply was on disk before the record told of it: somebody took it away, or only one of them is older."""
        try:
            self.kept_reply()
        except IntegrityError:
            # A node that answers at this very moment changes both, one after the other; then this look says nothing.
            if self._read() == self._entry:
                raise self._unfit(f"tells of a reply that {self._reply_path.name} does not hold") from None
            self._entry = self._read()

    def _check_unchanged(self) -> None:
        """Another process with this record would give a second reply to one request: refuse as soon as it shows."""
        if self._read() != self._entry:
            raise self._unfit("was changed by somebody else")

    def _write(self, entry: _Entry) -> None:
        write_sealed(self._path, entry.model_dump(mode="json"))
        # Only now: had the write failed, the object must not believe more than the disk holds.
        self._entry = entry

    def _read(self) -> _Entry:
        if not self._path.exists():
            raise self._unfit("is missing")
        entry, _ = read_entry(self._path, _Entry, self._unfit, belongs=lambda _: True)
        if (entry.federation, entry.site) != (self._federation, self._site):
            raise self._unfit("belongs to another federation or site")
        return entry

    def _unfit(self, rule: str) -> IntegrityError:
        return IntegrityError(f"the record of requests {self._path} {rule}", hint=RENEWAL_HINT)
