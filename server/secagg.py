"""The coordinator's half of secure aggregation: all that it can do with what it is sent.

It relays keys and shares that it cannot read, adds up masked numbers, and takes the masks off the sum with what the
sites reveal. docs/protocol.md numbers the steps. Nothing here is trusted by a site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from common.errors import ProtocolError
from common.fields import Bytes, Ring
from common.identity import SIGNATURE_BYTES, is_signed_by
from common.plan import Plan
from common.secagg import fixed_point
from common.secagg import roster as keys_of
from common.secagg.graph import neighbours, points
from common.secagg.keys import public_bytes, seed_commitment
from common.secagg.masking import SignedSeed, add_masks, pairwise_seed, pairwise_sign, round_context, self_mask_seed
from common.secagg.messages import (
    CONSENT_PURPOSE,
    REPLY_PURPOSE,
    Consent,
    MaskedOrder,
    MaskedReply,
    Reveal,
    RevealRequest,
    SessionKeys,
    SessionRoster,
    SessionShares,
    SurvivorSet,
    consent_content,
    join,
    pieces,
    reply_content,
)
from common.secagg.sealing import SEALED_BYTES
from common.secagg.shamir import SHARE_BYTES, recover


@dataclass(frozen=True, eq=False)
class Session:
    """A session whose sites have dealt their shares.

    Attributes:
        plan: The plan.
        roster: Everybody's keys.
        dealt: What each site of the cohort dealt, by name.
    """

    plan: Plan = field(repr=False)
    roster: SessionRoster
    dealt: Mapping[str, SessionShares] = field(repr=False)

    @property
    def id(self) -> str:
        """The session's id."""
        return self.roster.session

    @property
    def rounds(self) -> range:
        """Rounds that it is for."""
        return self.roster.numbers

    @property
    def cohort(self) -> tuple[str, ...]:
        """Sites whose masks are in the session's rounds, in order of name."""
        return tuple(sorted(self.dealt))

    @property
    def digest(self) -> str:
        """The roster's digest."""
        return self.roster.digest

    @cached_property
    def parts(self) -> dict[str, SessionKeys]:
        """Everybody's keys by name."""
        return self.roster.parts()

    @cached_property
    def neighbours(self) -> dict[str, tuple[str, ...]]:
        """Neighbours in the roster of every site in it."""
        return neighbours_in(self.plan, self.roster)

    @cached_property
    def points(self) -> dict[str, int]:
        """Where each site stands in the secret sharing."""
        return points(self.plan.roster)

    def neighbours_in_cohort(self, site: str) -> tuple[str, ...]:
        """The site's neighbours that dealt their shares, in order of name."""
        return tuple(name for name in self.neighbours[site] if name in self.dealt)

    def sealed(self, dealer: str, recipient: str, round_number: int) -> Bytes:
        """What a site dealt to another for a round."""
        shares = self.dealt[dealer]
        first = shares.recipients.index(recipient) * self.roster.rounds
        start = (first + round_number - self.roster.first_round) * SEALED_BYTES
        return shares.sealed[start : start + SEALED_BYTES]


def neighbours_in(plan: Plan, roster: SessionRoster) -> dict[str, tuple[str, ...]]:
    """Neighbours of every site of a roster."""
    degree, digest = plan.parameters.neighbourhood.degree, roster.digest
    return {site: neighbours(site, tuple(plan.roster), roster.sites, degree, digest) for site in roster.sites}


def good_keys(part: SessionKeys, plan: Plan) -> bool:
    """Whether keys would pass at the sites; one bad part would make every site refuse the roster."""
    try:
        keys_of.check_part(part, plan.roster)
    except ProtocolError:
        return False
    return True


def good_shares(shares: SessionShares, roster: SessionRoster, recipients: tuple[str, ...]) -> bool:
    """Whether there is a sealed pair for each neighbour and round; what is in it only the recipient can tell."""
    size = len(recipients) * roster.rounds * SEALED_BYTES
    return shares.recipients == recipients and len(shares.sealed) == size


class CoordinatorRound:
    """One round, from the first masked reply to the sum.

    Guarantees:
        `total` is the sum modulo 2^32 of what the survivors masked, or an error; the masks of every survivor and every
        missing site are checked against what the session's keys commit to before they are taken off. No site's numbers
        are kept: a reply is added up when it comes.

    Args:
        session: The session.
        order: What the sites were asked.
    """

    def __init__(self, session: Session, order: MaskedOrder, model: str) -> None:
        self._session = session
        self._order = order
        self.context = round_context(session.digest, order.cohort, order.round_number, model)
        self._total: Ring = np.zeros(len(order.weights), dtype=np.uint32)
        self._replied: dict[str, bytes] = {}
        self._consents: dict[str, bytes] = {}
        self._reveals: dict[str, dict[str, bytes]] = {}

    @property
    def survivors(self) -> tuple[str, ...]:
        """Sites in the sum, in order of name."""
        return tuple(sorted(self._replied))

    @property
    def masked_total(self) -> Ring:
        """The sum as it stands, masks and all, `[d]`."""
        return self._total

    @property
    def signatures(self) -> Bytes:
        """Each survivor's signature of the context, in order of name, `[64 s]`."""
        return join([self._replied[name] for name in self.survivors])

    def restore(self, survivors: tuple[str, ...], signatures: Bytes, masked_total: Ring) -> None:
        """Go on from a sum that was saved before the survivors were asked."""
        parts = pieces(signatures, len(survivors), SIGNATURE_BYTES, "signatures")
        self._replied = {name: part.tobytes() for name, part in zip(survivors, parts, strict=True)}
        self._total = masked_total.copy()

    def is_for_this(self, reply: MaskedReply) -> bool:
        """Whether a reply is signed for this round's context; another one would spoil the sum."""
        identity = self._session.plan.roster[reply.site]
        return is_signed_by(identity, REPLY_PURPOSE, reply_content(self.context), reply.signature.tobytes())

    def add(self, reply: MaskedReply) -> None:
        """Step 6: add a reply of the right length up."""
        np.add(self._total, reply.masked, out=self._total)
        self._replied[reply.site] = reply.signature.tobytes()

    def survivor_set(self) -> SurvivorSet:
        """Step 7: say whose replies were added up."""
        scalars = (self._order.plan_digest, self._session.id, self._order.round_number)
        return SurvivorSet(*scalars, self.survivors, self.signatures)

    def is_good(self, consent: Consent) -> bool:
        """Whether a consent is the site's signature over this round and these survivors."""
        identity = self._session.plan.roster[consent.site]
        content = consent_content(self.context, self.survivors)
        return is_signed_by(identity, CONSENT_PURPOSE, content, consent.signature.tobytes())

    def agree(self, consent: Consent) -> None:
        """Step 8: keep a good consent."""
        self._consents[consent.site] = consent.signature.tobytes()

    @property
    def agreed(self) -> int:
        """Sites that agreed."""
        return len(self._consents)

    def reveal_request(self, site: str) -> RevealRequest:
        """Step 9: show a site who agreed, and bring it what its neighbours dealt to it for this round."""
        number, dealers = self._order.round_number, self._session.neighbours_in_cohort(site)
        signers = tuple(sorted(self._consents))
        return RevealRequest(
            plan_digest=self._order.plan_digest,
            session=self._session.id,
            round_number=number,
            survivors=self.survivors,
            signers=signers,
            signatures=join([self._consents[name] for name in signers]),
            dealers=dealers,
            sealed=join([self._session.sealed(dealer, site, number).tobytes() for dealer in dealers]),
        )

    def fits(self, reveal: Reveal) -> bool:
        """Whether there is a share for each owner that this site holds one of."""
        owners = tuple(sorted({reveal.site, *self._session.neighbours_in_cohort(reveal.site)}))
        return reveal.owners == owners and len(reveal.shares) == len(owners) * SHARE_BYTES

    def open(self, reveal: Reveal) -> None:
        """Step 10: keep a fitting reveal."""
        shares = pieces(reveal.shares, len(reveal.owners), SHARE_BYTES, "shares")
        self._reveals[reveal.site] = {
            owner: share.tobytes() for owner, share in zip(reveal.owners, shares, strict=True)
        }

    @property
    def enough_shares(self) -> bool:
        """Whether every secret that is needed has shares enough."""
        least = self._session.plan.parameters.neighbourhood.share_threshold
        return all(len(self._shares_of(owner)) >= least for owner in self._session.cohort)

    def total(self) -> npt.NDArray[np.int64]:
        """Step 11: take every mask off the sum, `[d]`.

        Raises:
            ProtocolError: When shares are missing, or give a secret that is not the one its owner committed to.
        """
        seeds: list[SignedSeed] = []
        for owner in self._session.cohort:
            seeds += self._self_mask(owner) if owner in self._replied else self._pairwise_masks(owner)
        return fixed_point.decode(add_masks(self._total, seeds))

    def _shares_of(self, owner: str) -> dict[int, bytes]:
        places = self._session.points
        return {places[holder]: shares[owner] for holder, shares in self._reveals.items() if owner in shares}

    def _secret_of(self, owner: str, is_right: Callable[[bytes], bool]) -> bytes:
        """The owner's secret of the round, from any of its shares that give it.

        One wrong share among more than the threshold is left out; several are not looked for.
        """
        shares, least = self._shares_of(owner), self._session.plan.parameters.neighbourhood.share_threshold
        for left_out in (None, *shares):
            secret = _recovered({place: share for place, share in shares.items() if place != left_out}, least)
            if secret is not None and is_right(secret):
                return secret
        raise ProtocolError(f"what the sites revealed of {owner} does not give the secret that it committed to")

    def _self_mask(self, owner: str) -> list[SignedSeed]:
        """A survivor's own mask, to be taken off."""
        committed = keys_of.commitment(self._session.parts[owner], self._order.round_number)
        seed = self._secret_of(owner, lambda secret: seed_commitment(secret) == committed)
        return [(self_mask_seed(seed, owner, self.context), -1)]

    def _pairwise_masks(self, owner: str) -> list[SignedSeed]:
        """The masks that survivors share with a missing site, which nothing cancels, to be taken off."""
        number = self._order.round_number
        published = keys_of.mask_key(self._session.parts[owner], number)
        secret = self._secret_of(owner, lambda found: public_bytes(_private_key(found)) == published)
        key, seeds = _private_key(secret), []
        for peer in self._session.neighbours_in_cohort(owner):
            if peer in self._replied:
                public = keys_of.mask_key(self._session.parts[peer], number)
                seeds.append((pairwise_seed(key, public, (owner, peer), self.context), -pairwise_sign(peer, owner)))
        return seeds


def _private_key(secret: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(secret)


def _recovered(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    try:
        return recover(shares, threshold)
    except ProtocolError:
        return None
