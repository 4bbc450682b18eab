"""What one site derives from its secret and the roster that it agreed to."""

from __future__ import annotations

from dataclasses import dataclass

from common.plan import Plan
from common.secagg import roster as keys_of
from common.secagg import shamir
from common.secagg.graph import neighbours, points
from common.secagg.keys import SessionSecret
from common.secagg.masking import SignedSeed, pairwise_seed, pairwise_sign, self_mask_seed
from common.secagg.messages import SessionKeys, SessionRoster
from common.secagg.sealing import Channel, SharePair


@dataclass(frozen=True)
class RoundTerms:
    """What a site must remember of a round's order, durably, to go on with the round.

    Attributes:
        context: As `round_context` gives it.
        cohort: Sites whose masks are in the round.
    """

    context: str
    cohort: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class SessionView:
    """A session from one site's place: peers' keys, neighbours, and the site's own secret.

    Attributes:
        site: Name of the site.
        secret: Its secret of the session.
        roster: The session's keys.
        parts: The keys by site.
        neighbours: Sites that masks and shares are exchanged with, in order of name.
        points: Where each site stands in the secret sharing.
        share_threshold: Shares that give a secret back.
    """

    site: str
    secret: SessionSecret
    roster: SessionRoster
    parts: dict[str, SessionKeys]
    neighbours: tuple[str, ...]
    points: dict[str, int]
    share_threshold: int

    @classmethod
    def of(cls, site: str, plan: Plan, secret: SessionSecret, roster: SessionRoster) -> SessionView:
        """The view of a roster that was checked before."""
        neighbourhood = plan.parameters.neighbourhood
        return cls(
            site=site,
            secret=secret,
            roster=roster,
            parts=roster.parts(),
            neighbours=neighbours(site, tuple(plan.roster), roster.sites, neighbourhood.degree, roster.digest),
            points=points(plan.roster),
            share_threshold=neighbourhood.share_threshold,
        )

    @property
    def rounds(self) -> range:
        """Rounds of the session."""
        return self.roster.numbers

    @property
    def digest(self) -> str:
        """The roster's digest."""
        return self.roster.digest

    def neighbours_in(self, cohort: tuple[str, ...]) -> tuple[str, ...]:
        """The neighbours that take part in a round, in order of name."""
        present = set(cohort)
        return tuple(name for name in self.neighbours if name in present)

    def seeds(self, round_number: int, cohort: tuple[str, ...], context: str) -> list[SignedSeed]:
        """Seeds of the masks that this site adds or takes off in a round: its own, and one a neighbour."""
        own = self.secret.mask_key(round_number)
        seeds = [(self_mask_seed(self.secret.self_seed(round_number), self.site, context), 1)]
        for peer in self.neighbours_in(cohort):
            public = keys_of.mask_key(self.parts[peer], round_number)
            seed = pairwise_seed(own, public, (self.site, peer), context)
            seeds.append((seed, pairwise_sign(self.site, peer)))
        return seeds

    def own_pair(self, round_number: int) -> SharePair:
        """The two shares of a round that this site deals to itself."""
        return self._pairs(round_number, (self.site,))[0]

    def sealed(self) -> bytes:
        """For each neighbour, in order of name, its pair of shares of each round, sealed."""
        channels = [self._channel(peer, sender=self.site, recipient=peer) for peer in self.neighbours]
        dealt = {number: self._pairs(number, self.neighbours) for number in self.rounds}
        return b"".join(
            channel.seal(dealt[number][place], number)
            for place, channel in enumerate(channels)
            for number in self.rounds
        )

    def opened(self, dealer: str, sealed: bytes, round_number: int) -> SharePair:
        """What a neighbour dealt to this site for a round.

        Raises:
            ProtocolError: When it is not that.
        """
        return self._channel(dealer, sender=dealer, recipient=self.site).open(sealed, round_number)

    def _pairs(self, round_number: int, holders: tuple[str, ...]) -> list[SharePair]:
        mask_keys = self._shares("mask key", self.secret.mask_key_bytes(round_number), round_number, holders)
        self_seeds = self._shares("self seed", self.secret.self_seed(round_number), round_number, holders)
        return [SharePair(mask_key, self_seed) for mask_key, self_seed in zip(mask_keys, self_seeds, strict=True)]

    def _shares(self, kind: str, secret: bytes, round_number: int, holders: tuple[str, ...]) -> list[bytes]:
        coefficients = self.secret.coefficients(kind, round_number, self.share_threshold - 1)
        return shamir.deal(secret, coefficients, [self.points[holder] for holder in holders])

    def _channel(self, peer: str, *, sender: str, recipient: str) -> Channel:
        public = keys_of.channel_key(self.parts[peer])
        return Channel(self.secret.channel_key(), public, sender, recipient, self.digest)
