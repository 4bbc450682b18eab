"""What coordinator and sites say to each other to add up without looking; docs/protocol.md shows them in order.

    once a session    1  SessionInvite   coordinator -> site   make keys for these rounds
                      2  SessionKeys     site -> coordinator   public keys, signed
                      3  SessionRoster   coordinator -> site   everybody's keys
                      4  SessionShares   site -> coordinator   shares for each neighbour, sealed
    in each round     5  MaskedOrder     coordinator -> site   train on this model
                      6  MaskedReply     site -> coordinator   masked numbers, and for which round context
                      7  SurvivorSet     coordinator -> site   these replies came, for this context
                      8  Consent         site -> coordinator   agreed, signed
                      9  RevealRequest   coordinator -> site   so many agreed; your neighbours' shares
                     10  Reveal          site -> coordinator   one share for each neighbour

Lists of equal pieces (keys, signatures, sealed shares) travel as one vector of bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from common.canonical import digest
from common.errors import ProtocolError
from common.fields import (
    BYTES,
    NAMES,
    PLAN,
    RING,
    ROUND,
    SESSION,
    SIGNATURE,
    SITE,
    VECTOR,
    Bytes,
    FieldRule,
    Ring,
    Vector,
)
from common.identity import SIGNATURE_BYTES
from common.secagg.keys import keys_size

KEY_PURPOSE = "session keys"
REPLY_PURPOSE = "masked reply"
CONSENT_PURPOSE = "consent to survivors"


@dataclass(frozen=True)
class SessionInvite:
    """The coordinator opens a session for rounds `first_round` to `first_round + rounds - 1`."""

    plan_digest: str
    session: str
    first_round: int
    rounds: int


@dataclass(frozen=True, eq=False)
class SessionKeys:
    """A site's public keys for a session.

    Args:
        site: Whose keys.
        keys: Channel key, then mask key and commitment to the self-mask seed of each round: `[32 + 64 m]`.
        signature: Of the site's identity over all of it, `[64]`.
    """

    plan_digest: str
    session: str
    first_round: int
    rounds: int
    site: str
    keys: Bytes = field(repr=False)
    signature: Bytes = field(repr=False)

    def signed_content(self) -> list[str | int]:
        """What the signature is over, as a JSON value."""
        return [self.plan_digest, self.session, self.first_round, self.rounds, self.site, self.keys.tobytes().hex()]


@dataclass(frozen=True, eq=False)
class SessionRoster:
    """Everybody's keys, put together by the coordinator; each site checks each signature.

    Args:
        sites: Whose keys follow, in order of name.
        keys: Of each site, `[n (32 + 64 m)]`.
        signatures: Of each site, `[64 n]`.
    """

    plan_digest: str
    session: str
    first_round: int
    rounds: int
    sites: tuple[str, ...]
    keys: Bytes = field(repr=False)
    signatures: Bytes = field(repr=False)

    @classmethod
    def of(cls, parts: Iterable[SessionKeys]) -> SessionRoster:
        """The roster that these keys make; they are of one session."""
        ordered = sorted(parts, key=lambda part: part.site)
        first = ordered[0]
        return cls(
            first.plan_digest,
            first.session,
            first.first_round,
            first.rounds,
            tuple(part.site for part in ordered),
            np.concatenate([part.keys for part in ordered]),
            np.concatenate([part.signature for part in ordered]),
        )

    @property
    def numbers(self) -> range:
        """The session's rounds."""
        return range(self.first_round, self.first_round + self.rounds)

    @cached_property
    def digest(self) -> str:
        """What all later messages of the session are bound to, as 64 hexadecimal digits."""
        scalars = [self.plan_digest, self.session, self.first_round, self.rounds, list(self.sites)]
        return digest(["cloister session roster", 1, *scalars, self.keys.tobytes().hex()])

    def parts(self) -> dict[str, SessionKeys]:
        """Each site's keys by name, as that site signed them.

        Raises:
            ProtocolError: When keys or signatures are not as many as the sites.
        """
        keys = pieces(self.keys, len(self.sites), keys_size(self.rounds), "keys")
        signatures = pieces(self.signatures, len(self.sites), SIGNATURE_BYTES, "signatures")
        scalars = (self.plan_digest, self.session, self.first_round, self.rounds)
        return {
            site: SessionKeys(*scalars, site, own, signature)
            for site, own, signature in zip(self.sites, keys, signatures, strict=True)
        }


@dataclass(frozen=True, eq=False)
class SessionShares:
    """A site's sealed shares, for each recipient (in order of name) and each round of the session."""

    plan_digest: str
    session: str
    site: str
    recipients: tuple[str, ...]
    sealed: Bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class MaskedOrder:
    """The coordinator asks for one round of training whose result is to be masked.

    Args:
        plan_digest: Digest of the plan that the round belongs to.
        session: The session whose keys are used.
        round_number: From 1.
        cohort: Sites of the session that dealt their shares: those whose masks are in the round.
        weights: The trainable values of the global model, `[d]`.
        basis: The frozen LoRA matrices when the server has changed them, `[b]`; empty otherwise.
    """

    plan_digest: str
    session: str
    round_number: int
    cohort: tuple[str, ...]
    weights: Vector = field(repr=False)
    basis: Vector = field(repr=False)


@dataclass(frozen=True, eq=False)
class MaskedReply:
    """One site's numbers under its masks, and the context that they are for.

    Args:
        site: Whose numbers.
        masked: Numbers modulo 2^32, `[d]`: uniform to whoever lacks the seeds.
        signature: Of the site's identity over the round's context, `[64]`; a site signs one context a round.
    """

    plan_digest: str
    session: str
    round_number: int
    site: str
    masked: Ring = field(repr=False)
    signature: Bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class SurvivorSet:
    """The coordinator says whose replies it has added up, and shows that all of them are for one context.

    Args:
        survivors: Sites in the sum, in order of name.
        signatures: That of each survivor's reply, `[64 s]`.
    """

    plan_digest: str
    session: str
    round_number: int
    survivors: tuple[str, ...]
    signatures: Bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Consent:
    """A site agrees to one survivor set, for good; the signature is over round context and set, `[64]`."""

    plan_digest: str
    session: str
    round_number: int
    site: str
    signature: Bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class RevealRequest:
    """The coordinator shows who agreed, and brings the sealed shares of this site's neighbours.

    Args:
        survivors: As in the `SurvivorSet`.
        signers: Who agreed, in order of name.
        signatures: Of each signer, `[64 s]`.
        dealers: The recipient's neighbours in the cohort, in order of name.
        sealed: What each of them dealt to the recipient for this round, `[82 k]`.
    """

    plan_digest: str
    session: str
    round_number: int
    survivors: tuple[str, ...]
    signers: tuple[str, ...]
    signatures: Bytes = field(repr=False)
    dealers: tuple[str, ...]
    sealed: Bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Reveal:
    """One share for each owner, `[33 k]`: of its self-mask seed if it is a survivor, else of its mask key."""

    plan_digest: str
    session: str
    round_number: int
    site: str
    owners: tuple[str, ...]
    shares: Bytes = field(repr=False)


CoordinatorMessage = SessionInvite | SessionRoster | MaskedOrder | SurvivorSet | RevealRequest
SiteMessage = SessionKeys | SessionShares | MaskedReply | Consent | Reveal

_SESSION: Mapping[str, FieldRule] = {"plan_digest": PLAN, "session": SESSION}
_SPAN: Mapping[str, FieldRule] = {**_SESSION, "first_round": ROUND, "rounds": ROUND}
_ROUND: Mapping[str, FieldRule] = {**_SESSION, "round_number": ROUND}
_AGREED: Mapping[str, FieldRule] = {"signers": NAMES, "signatures": BYTES}
_DEALT: Mapping[str, FieldRule] = {"dealers": NAMES, "sealed": BYTES}
SECAGG_RULES: Mapping[type[Any], Mapping[str, FieldRule]] = {
    SessionInvite: _SPAN,
    SessionKeys: {**_SPAN, "site": SITE, "keys": BYTES, "signature": SIGNATURE},
    SessionRoster: {**_SPAN, "sites": NAMES, "keys": BYTES, "signatures": BYTES},
    SessionShares: {**_SESSION, "site": SITE, "recipients": NAMES, "sealed": BYTES},
    MaskedOrder: {**_ROUND, "cohort": NAMES, "weights": VECTOR, "basis": VECTOR},
    MaskedReply: {**_ROUND, "site": SITE, "masked": RING, "signature": SIGNATURE},
    SurvivorSet: {**_ROUND, "survivors": NAMES, "signatures": BYTES},
    Consent: {**_ROUND, "site": SITE, "signature": SIGNATURE},
    RevealRequest: {**_ROUND, "survivors": NAMES, **_AGREED, **_DEALT},
    Reveal: {**_ROUND, "site": SITE, "owners": NAMES, "shares": BYTES},
}
"""Every message of secure aggregation and every field of it."""


def reply_content(context: str) -> list[str]:
    """What a masked reply's signature is over, as a JSON value: the round in every respect, and not the numbers."""
    return [context]


def consent_content(context: str, survivors: tuple[str, ...]) -> list[str | list[str]]:
    """What a consent's signature is over, as a JSON value: the round in every respect, and the set."""
    return [context, list(survivors)]


def pieces(joined: Bytes, count: int, size: int, name: str) -> list[Bytes]:
    """Cut a vector into `count` pieces of `size` bytes.

    Raises:
        ProtocolError: When it has another length.
    """
    if len(joined) != count * size:
        raise ProtocolError(f"{name} must have {count} x {size} bytes, not {len(joined)}")
    return [joined[start : start + size] for start in range(0, count * size, size)]


def join(parts: Sequence[bytes]) -> Bytes:
    """Pieces as one vector of bytes."""
    return np.frombuffer(b"".join(parts), dtype=np.uint8)
