"""All that can be computed from all that a coordinator has seen: which sums of hospitals' numbers come to light.

A masked reply is a hospital's numbers plus or minus masks, and each mask is a stream of random words under a seed
of its own. One whose seed is unknown goes away in one way only: in a combination of replies in which it cancels.
So, once every secret that has shares enough is put together, all that can be read is found by linear algebra on the
masks that remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.session_view import SessionView
from common.errors import ProtocolError
from common.plan import Plan
from common.secagg import roster as keys_of
from common.secagg.fixed_point import decode
from common.secagg.graph import neighbours, points
from common.secagg.keys import public_bytes, seed_commitment
from common.secagg.masking import (
    add_masks,
    model_digest,
    pairwise_seed,
    pairwise_sign,
    round_context,
    self_mask_seed,
)
from common.secagg.messages import (
    MaskedOrder,
    MaskedReply,
    Reveal,
    SessionKeys,
    SessionRoster,
    SessionShares,
    SurvivorSet,
    pieces,
)
from common.secagg.sealing import SEALED_BYTES, SharePair
from common.secagg.shamir import SHARE_BYTES, recover

Key = TypeVar("Key")
Published = bytes
"""What a hospital published of a secret: a public mask key, or the commitment to a self-mask seed."""
Mask = tuple[str, ...]
"""A mask by name: the context it is bound to, and the one or two hospitals that know it."""


@dataclass(frozen=True)
class Opening:
    """A combination of hospitals' numbers that can be read.

    Attributes:
        round_number: Of the round.
        weights: How often each reply counts, by name; a hospital that stands here twice replied twice.
        values: The combination itself, `[d]`.
    """

    round_number: int
    weights: tuple[tuple[str, int], ...]
    values: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join(f"{'+' if weight > 0 else '-'} {site}" for site, weight in self.weights).removeprefix("+ ")


@dataclass(frozen=True, eq=False)
class _Seen:
    """A masked reply with what it belongs to."""

    roster: SessionRoster
    order: MaskedOrder
    reply: MaskedReply
    context: str

    @property
    def key(self) -> tuple[str, str, bytes]:
        return self.context, self.reply.site, self.reply.masked.tobytes()


class WholeView:
    """What the coordinator and the colluding sites know together.

    Guarantees:
        `openings` spans every linear combination of the honest sites' replies in which no unknown mask is left.

    Args:
        plan: The plan.
        colluders: Sites whose own numbers are known anyway.
    """

    def __init__(self, plan: Plan, colluders: tuple[str, ...]) -> None:
        self._plan, self._colluders = plan, colluders
        self._points = points(plan.roster)
        self._seen: list[_Seen] = []
        self._shares: dict[Published, dict[int, bytes]] = {}
        self._told: dict[Published, bytes] = {}

    # --- what is seen ---

    def reply(self, roster: SessionRoster, order: MaskedOrder, reply: MaskedReply) -> None:
        """A site's answer to the order that this very site was sent; the same bytes again say nothing new."""
        model = model_digest(order.weights, order.basis)
        context = round_context(roster.digest, order.cohort, order.round_number, model)
        new = _Seen(roster, order, reply, context)
        if reply.site not in self._colluders and new.key not in {seen.key for seen in self._seen}:
            self._seen.append(new)

    def reveal(self, roster: SessionRoster, asked: SurvivorSet, reveal: Reveal) -> None:
        """A site's shares, and the survivors for whom it gave them."""
        for owner, share in zip(reveal.owners, pieces(reveal.shares, len(reveal.owners), SHARE_BYTES, ""), strict=True):
            published = keys_of.commitment if owner in asked.survivors else keys_of.mask_key
            self._keep(published(roster.parts()[owner], asked.round_number), reveal.site, share.tobytes())

    def told(self, colluder: SessionView, dealt: Mapping[str, SessionShares]) -> None:
        """A colluder's place: it knows its own masks, and opens every share that was dealt to it."""
        for number in colluder.rounds:
            own, secret = colluder.parts[colluder.site], colluder.secret
            self._told[keys_of.mask_key(own, number)] = secret.mask_key_bytes(number)
            self._told[keys_of.commitment(own, number)] = secret.self_seed(number)
            for dealer in set(dealt) - {colluder.site}:
                sealed = _sealed(dealt[dealer], colluder, number)
                pair = colluder.opened(dealer, sealed, number)
                self._keep_pair(colluder.parts[dealer], number, colluder.site, pair)

    def _keep_pair(self, owner: SessionKeys, number: int, holder: str, pair: SharePair) -> None:
        self._keep(keys_of.mask_key(owner, number), holder, pair.mask_key)
        self._keep(keys_of.commitment(owner, number), holder, pair.self_seed)

    def _keep(self, published: Published, holder: str, share: bytes) -> None:
        self._shares.setdefault(published, {})[self._points[holder]] = share

    # --- what follows from it ---

    def openings(self) -> list[Opening]:
        """Every combination of replies that can be read, as a basis of all of them."""
        secrets = self._secrets()
        rows, plain = [], []
        for seen in self._seen:
            unknown, values = self._unmasked(seen, secrets)
            rows.append(unknown)
            plain.append(values)
        return [self._opening(weights, plain) for weights in combinations_without_masks(rows)]

    def _opening(self, weights: dict[int, int], plain: list[npt.NDArray[np.uint32]]) -> Opening:
        total = sum(weight * plain[row].astype(np.int64) for row, weight in weights.items())
        values = decode(np.asarray(total, dtype=np.int64).astype(np.uint32)).tolist()
        named = tuple((self._seen[row].reply.site, weight) for row, weight in sorted(weights.items()))
        return Opening(self._seen[min(weights)].order.round_number, named, tuple(values))

    def _secrets(self) -> dict[Published, bytes]:
        """Every secret that was told, or that has shares enough."""
        secrets = dict(self._told)
        least = self._plan.parameters.neighbourhood.share_threshold
        for published, shares in self._shares.items():
            if len(shares) >= least:
                try:
                    secret = recover(shares, least)
                except ProtocolError:
                    continue
                if published in (seed_commitment(secret), public_bytes(X25519PrivateKey.from_private_bytes(secret))):
                    secrets[published] = secret
        return secrets

    def _unmasked(
        self, seen: _Seen, secrets: Mapping[Published, bytes]
    ) -> tuple[dict[Mask, int], npt.NDArray[np.uint32]]:
        """The masks of a reply that are not known, with their signs, and the reply without those that are."""
        site, number = seen.reply.site, seen.order.round_number
        parts = seen.roster.parts()
        unknown: dict[Mask, int] = {}
        known = []
        seed = secrets.get(keys_of.commitment(parts[site], number))
        if seed is None:
            unknown[seen.context, site] = 1
        else:
            known.append((self_mask_seed(seed, site, seen.context), -1))
        for peer in self._peers(seen):
            sign = pairwise_sign(site, peer)
            pair = _pair_seed(secrets, parts[site], parts[peer], seen)
            if pair is None:
                unknown[seen.context, *sorted((site, peer))] = sign
            else:
                known.append((pair, -sign))
        return unknown, add_masks(seen.reply.masked, known)

    def _peers(self, seen: _Seen) -> tuple[str, ...]:
        degree, roster = self._plan.parameters.neighbourhood.degree, seen.roster
        peers = neighbours(seen.reply.site, tuple(self._plan.roster), roster.sites, degree, roster.digest)
        return tuple(peer for peer in peers if peer in seen.order.cohort)


def _sealed(dealt: SessionShares, recipient: SessionView, number: int) -> bytes:
    """What was dealt to one hospital for one round."""
    place = dealt.recipients.index(recipient.site) * len(recipient.rounds) + number - recipient.rounds.start
    return dealt.sealed[place * SEALED_BYTES : (place + 1) * SEALED_BYTES].tobytes()


def _pair_seed(secrets: Mapping[Published, bytes], one: SessionKeys, two: SessionKeys, seen: _Seen) -> bytes | None:
    """The seed of the mask that two sites share, from the mask key of either."""
    number = seen.order.round_number
    for own, other in ((one, two), (two, one)):
        secret = secrets.get(keys_of.mask_key(own, number))
        if secret is not None:
            key, public = X25519PrivateKey.from_private_bytes(secret), keys_of.mask_key(other, number)
            return pairwise_seed(key, public, (own.site, other.site), seen.context)
    return None


def combinations_without_masks(rows: list[dict[Mask, int]]) -> list[dict[int, int]]:
    """All combinations of rows (by place, with weights) in which every mask cancels, as a basis.

    Elimination, row by row. Masks enter with 1 and -1, in at most two hospitals' rows, so that weights stay whole.
    """
    pivots: list[tuple[Mask, dict[Mask, int], dict[int, int]]] = []
    found = []
    for place, row in enumerate(rows):
        left, weights = dict(row), {place: 1}
        for mask, pivot, made_of in pivots:
            factor = left.get(mask, 0) * pivot[mask]  # pivot[mask] is 1 or -1: its own inverse
            left, weights = _minus(left, pivot, factor), _minus(weights, made_of, factor)
        if left:
            pivots.append((next(iter(left)), left, weights))
        else:
            found.append(weights)
    return found


def _minus(one: Mapping[Key, int], two: Mapping[Key, int], factor: int) -> dict[Key, int]:
    difference = {key: one.get(key, 0) - factor * two.get(key, 0) for key in {**one, **two}}
    return {key: value for key, value in difference.items() if value}
