"""The door of a site: which envelopes are taken in, and how its replies are sealed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.inbox_record import RENEWAL_HINT, InboxRecord
from common.envelope import COORDINATOR, ENVELOPE_LIMIT_BYTES, LARGEST_STEP, Envelope, open_envelope, seal
from common.errors import ConfigError, IntegrityError, RollbackError
from common.fields import RefusalCode
from common.identity import public_name

_log = structlog.get_logger()


@dataclass(frozen=True)
class Opened:
    """A request that the coordinator did sign.

    Attributes:
        envelope: What it says.
        digest: Names the request, see `Envelope.digest`.
        kept: The sealed reply that this very request was given before; None when it has none yet.
    """

    envelope: Envelope
    digest: str
    kept: bytes | None = field(default=None, repr=False)


class NotFromCoordinatorError(IntegrityError):
    """Bytes that the pinned coordinator did not sign, as they stand: they get no answer."""


class UnfitEnvelopeError(IntegrityError):
    """A request that is not for here or not for now; `code` is what the coordinator is told."""

    def __init__(self, code: RefusalCode, opened: Opened, message: str) -> None:
        super().__init__(message, hint="nothing was done; the coordinator goes on with its next request")
        self.code: RefusalCode = code
        self.opened = opened


class ForgottenAnswersError(RollbackError):
    """The coordinator has answers that this site does not remember; `code` is what the coordinator is told."""

    def __init__(self, opened: Opened, message: str) -> None:
        super().__init__(message, hint=f"this site's files are an older copy; {RENEWAL_HINT}")
        self.code: RefusalCode = "rolled-back"
        self.opened = opened


class Inbox:
    """Takes in the coordinator's requests, in order and once each, and seals the replies.

    Guarantees:
        What `open` returns was signed by the pinned coordinator, for this site, this identity of it and this
        federation, and is either newer than every request before, by `LARGEST_STEP` at most, and on disk before it
        returns, or the exact repeat of the last one. For one sequence at most
        one reply ever leaves, byte for byte, over any number of restarts. What is not signed is not answered.

    Edge cases:
        Killed between `open` and `reply`, the same request is handled once more; `client.inbox_record` says why that is
        safe. Numbers may be skipped. An older copy of this site's files is noticed as soon as the coordinator mentions
        an answer that they do not know of: not where the forgotten answers never arrived, or the coordinator lies.

    Args:
        path: The record, see `InboxRecord`.
        federation: 64 hexadecimal digits.
        site: Name of this site.
        identity: The site's key.
        coordinator_public: The pinned key of the coordinator, 64 hexadecimal digits.
        must_exist: Set when this site has taken part before, so that a missing record is a lost one.

    Raises:
        ConfigError: When the site has the coordinator's name.
        IntegrityError: As `InboxRecord`.
    """

    REFUSALS = (UnfitEnvelopeError, ForgottenAnswersError)
    """What `open` raises for a request that may be told why, by `refuse`."""

    def __init__(
        self,
        path: Path,
        federation: str,
        site: str,
        identity: Ed25519PrivateKey,
        coordinator_public: str,
        must_exist: bool = False,
    ) -> None:
        if site == COORDINATOR:
            raise ConfigError(f"no site may be called {COORDINATOR!r}", hint="rename the site")
        self._record = InboxRecord(path, federation, site, must_exist=must_exist)
        self._federation = federation
        self._site = site
        self._identity = identity
        self._coordinator_public = coordinator_public

    @property
    def last_sequence(self) -> int:
        """Number of the last request taken in; 0 before the first."""
        return self._record.last_sequence

    @property
    def answered(self) -> int:
        """The highest number that was answered; 0 before the first."""
        return self._record.answered

    @property
    def last_reply(self) -> bytes | None:
        """The sealed reply to the last request, as it is kept; None where there is none, or it is damaged."""
        try:
            return self._record.kept_reply()
        except IntegrityError:
            return None

    def open(self, request: bytes, limit_bytes: int = ENVELOPE_LIMIT_BYTES) -> Opened:
        """Check a request and take it in.

        Args:
            request: The bytes that came in the coordinator's name.
            limit_bytes: A longer request is not looked at.

        Returns:
            The request, and the reply that it was given before, if any: then there is nothing to do but to send it.

        Raises:
            NotFromCoordinatorError: When it is no envelope that the pinned key signed. Answer nothing.
            UnfitEnvelopeError: When it is addressed otherwise (`misaddressed`), or its number is past
                (`past-sequence`) or far beyond the last one (`far-sequence`). `refuse` seals an answer.
            ForgottenAnswersError: When the coordinator has seen answers that are not in the record (`rolled-back`).
                `refuse` seals an answer; then stop.
            IntegrityError: When this site's own files are damaged or were changed by somebody else.
            OSError: When the disk does not take the record; the request may come again.
        """
        opened = self._authenticated(request, limit_bytes)
        self._check_address(opened)
        self._check_memory(opened)
        sequence = opened.envelope.sequence
        self._check_step(opened)
        if sequence > self._record.last_sequence:
            self._record.begin(sequence, opened.digest)
        elif opened.digest != self._record.last_request:
            reason = f"request {sequence} comes after request {self._record.last_sequence}"
            self._refuse("past-sequence", opened, reason)
        return Opened(opened.envelope, opened.digest, self._record.kept_reply())

    def reply(self, opened: Opened, body: bytes) -> bytes:
        """Seal the one reply to the last request; it is on disk before it is returned.

        Args:
            opened: What `open` returned last.
            body: A frame that came through the outbox.

        Raises:
            RefusedError: When this is not the last request, or it was answered already.
            IntegrityError: When the record was changed by somebody else.
            OSError: When the disk does not take the reply; nothing may leave.
        """
        reply = self._sealed(opened, body, answered=opened.envelope.sequence)
        self._record.keep_reply(opened.digest, reply)
        return reply

    def refuse(self, refused: UnfitEnvelopeError | ForgottenAnswersError, body: bytes) -> bytes:
        """Seal the answer to a request that `open` refused; the record stays as it is.

        Args:
            refused: What `open` raised.
            body: A `Refusal` with its code, as a frame that came through the outbox.
        """
        return self._sealed(refused.opened, body, answered=self._record.answered)

    def _authenticated(self, request: bytes, limit_bytes: int) -> Opened:
        try:
            sealed = open_envelope(request, limit_bytes)
            return Opened(sealed.checked(self._coordinator_public), sealed.digest)
        except IntegrityError as error:
            _log.warning("request not answered", site=self._site, reason=error.message)
            raise NotFromCoordinatorError(error.message, error.hint) from None

    def _check_address(self, opened: Opened) -> None:
        envelope = opened.envelope
        expected = {
            "federation": self._federation,
            "sender": COORDINATOR,
            "sender_key": self._coordinator_public,
            "recipient": self._site,
            "recipient_key": public_name(self._identity),
            "answers": "",
        }
        for name, value in expected.items():
            # `answers`: what answers another message is no request, whatever else it says.
            if getattr(envelope, name) != value:
                self._refuse("misaddressed", opened, f"`{name}` of the envelope is not that of a request to this site")

    def _check_memory(self, opened: Opened) -> None:
        seen, answered = opened.envelope.acknowledged, self._record.answered
        if seen > answered:
            _log.error("answers forgotten", site=self._site, coordinator_has=seen, site_has=answered)
            raise ForgottenAnswersError(
                opened, f"the coordinator has this site's answer {seen}, and the site remembers none beyond {answered}"
            )

    def _check_step(self, opened: Opened) -> None:
        step = opened.envelope.sequence - self._record.last_sequence
        if step > LARGEST_STEP:
            self._refuse("far-sequence", opened, f"the request is {step} beyond the last one and may be {LARGEST_STEP}")

    def _refuse(self, code: RefusalCode, opened: Opened, reason: str) -> NoReturn:
        _log.warning("envelope refused", site=self._site, sequence=opened.envelope.sequence, code=code, reason=reason)
        raise UnfitEnvelopeError(code, opened, reason)

    def _sealed(self, opened: Opened, body: bytes, answered: int) -> bytes:
        request = opened.envelope
        envelope = Envelope(
            federation=self._federation,
            plan_digest=request.plan_digest,
            round_number=request.round_number,
            sequence=request.sequence,
            acknowledged=answered,
            sender=self._site,
            recipient=COORDINATOR,
            body=body,
            answers=opened.digest,
            sender_key=public_name(self._identity),
            recipient_key=self._coordinator_public,
        )
        return seal(envelope, self._identity)
