"""A transport whose orders are signed and numbered, and whose answers are what the asked site said to this order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.envelope import COORDINATOR, ENVELOPE_LIMIT_BYTES, Envelope, open_envelope, seal
from common.errors import ConfigError, IntegrityError, TransportError
from common.identity import public_name
from common.transport import Transport
from common.wire import subject
from server.sequences import Place, Sequences

_log = structlog.get_logger()

DropKind = Literal[
    "unreadable",
    "unknown-site",
    "bad-signature",
    "other-federation",
    "wrong-sender",
    "wrong-recipient",
    "other-sequence",
    "other-request",
    "other-plan",
    "other-round",
]
"""Why an answer was dropped.

unreadable: no envelope. unknown-site: a site that was not asked. bad-signature: not signed, as it stands, by the site
in whose name it came. other-federation, wrong-sender, wrong-recipient: signed by it, and addressed otherwise.
other-sequence: late from an earlier exchange. other-request: the number of this order, and another order's answer.
other-plan, other-round: not of the order's.
"""


class SealedTransport:
    """A `Transport` over another one: signs and numbers each order, and hands on what the asked site said to it.

    Guarantees:
        A frame that comes out was signed by the site in whose name it comes, in this federation, to this coordinator,
        in answer to this very order. Each exchange takes new numbers, on disk before anything is sent. No answer,
        whatever its bytes, raises; what does not fit is dropped and counted by kind.

    Edge cases:
        An answer that is late is dropped: its order was given up. The same answer twice comes out twice. Orders are
        sealed one by one as the transport below asks for them, so that a large model is not held once for each site.

    Args:
        inner: What carries the envelopes.
        identity: The coordinator's key.
        federation: 64 hexadecimal digits.
        publics: Site name to public key, 64 hexadecimal digits: whose answers count.
        sequences: The numbers of this federation.
        limit_bytes: A longer answer is not looked at.

    Raises:
        ConfigError: When a site has the coordinator's name.
    """

    def __init__(
        self,
        inner: Transport,
        identity: Ed25519PrivateKey,
        federation: str,
        publics: Mapping[str, str],
        sequences: Sequences,
        limit_bytes: int = ENVELOPE_LIMIT_BYTES,
    ) -> None:
        if COORDINATOR in publics:
            raise ConfigError(f"no site may be called {COORDINATOR!r}", hint="enrol it under another name")
        self._inner = inner
        self._identity = identity
        self._federation = federation
        self._publics = dict(publics)
        self._sequences = sequences
        self._limit_bytes = limit_bytes
        self._dropped: Counter[DropKind] = Counter()

    @property
    def dropped(self) -> Mapping[DropKind, int]:
        """Answers that were dropped so far, by kind."""
        return dict(sorted(self._dropped.items()))

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`; answers are frames, out of their envelopes.

        Raises:
            TransportError: When a name is not one of the sites; nothing was sent then.
            IntegrityError: When the file of numbers is damaged or was changed by somebody else.
        """
        unknown = sorted(orders.keys() - self._publics.keys())
        if unknown:
            raise TransportError(f"site {unknown[0]} is not enrolled", hint="check the names of the sites")
        requests = self._requests(orders)
        for site, data in self._inner.exchange(requests):
            answer = self._checked(site, data, requests)
            if isinstance(answer, Envelope):
                # Before anybody acts on it: a coordinator that is killed must not ask for it as if it had none.
                self._sequences.save()
                yield site, answer.body
            else:
                _log.warning("answer dropped", site=site, kind=answer)
                self._dropped[answer] += 1
        self._sequences.save()

    def _requests(self, orders: Mapping[str, bytes]) -> _Requests:
        places = self._sequences.take([self._publics[site] for site in orders])
        envelopes = {site: self._request(site, order, places[self._publics[site]]) for site, order in orders.items()}
        return _Requests(envelopes, self._identity)

    def _request(self, site: str, order: bytes, place: Place) -> Envelope:
        plan_digest, round_number = subject(order)
        return Envelope(
            federation=self._federation,
            plan_digest=plan_digest,
            round_number=round_number,
            sequence=place.sequence,
            acknowledged=place.acknowledged,
            sender=COORDINATOR,
            recipient=site,
            body=order,
            sender_key=public_name(self._identity),
            recipient_key=self._publics[site],
        )

    def _checked(self, site: str, data: bytes, requests: _Requests) -> Envelope | DropKind:
        """The site's answer to what it was asked, or what is wrong with it."""
        answer = self._authenticated(site, data, requests)
        if not isinstance(answer, Envelope):
            return answer
        fault = self._address_fault(site, answer)
        if fault is None:
            self._learn(site, answer.acknowledged)
            fault = _place_fault(requests.envelopes[site], answer)
        return fault or answer

    def _authenticated(self, site: str, data: bytes, requests: _Requests) -> Envelope | DropKind:
        if site not in requests:
            return "unknown-site"
        try:
            sealed = open_envelope(data, self._limit_bytes)
        except IntegrityError:
            return "unreadable"
        try:
            return sealed.checked(self._publics[site])
        except IntegrityError:
            return "bad-signature"

    def _address_fault(self, site: str, answer: Envelope) -> DropKind | None:
        if answer.federation != self._federation:
            return "other-federation"
        if (answer.sender, answer.sender_key) != (site, self._publics[site]):
            return "wrong-sender"
        here = (COORDINATOR, public_name(self._identity))
        return "wrong-recipient" if (answer.recipient, answer.recipient_key) != here else None

    def _learn(self, site: str, answered: int) -> None:
        if self._sequences.learn(self._publics[site], answered):
            _log.error("site is ahead: the coordinator's file of numbers was lost or is an older copy", site=site)


def _place_fault(request: Envelope, answer: Envelope) -> DropKind | None:
    if answer.sequence != request.sequence:
        return "other-sequence"
    if answer.answers != request.digest:
        return "other-request"
    if answer.plan_digest != request.plan_digest:
        return "other-plan"
    return "other-round" if answer.round_number != request.round_number else None


class _Requests(Mapping[str, bytes]):
    """Sealed orders by site, each sealed when it is asked for: always to the same bytes, for Ed25519 draws nothing."""

    def __init__(self, envelopes: Mapping[str, Envelope], identity: Ed25519PrivateKey) -> None:
        self.envelopes = envelopes
        self._identity = identity

    def __getitem__(self, site: str) -> bytes:
        return seal(self.envelopes[site], self._identity)

    def __iter__(self) -> Iterator[str]:
        return iter(self.envelopes)

    def __len__(self) -> int:
        return len(self.envelopes)
