"""A hospital's half of secure aggregation: what it checks, and all that it ever gives away.

docs/protocol.md numbers the steps. Nothing here trusts the coordinator, who relays every message and may be anybody.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.refusals import TooFewSitesAgreeError, UnsafeRequestError
from client.session import SessionBook
from client.session_view import RoundTerms, SessionView
from common.errors import IntegrityError, ProtocolError
from common.fields import Bytes, RefusalCode
from common.identity import SIGNATURE_BYTES, is_signed_by, public_name, sign
from common.plan import Plan
from common.secagg import fixed_point
from common.secagg.keys import public_bytes, seed_commitment
from common.secagg.masking import add_masks, model_digest, round_context
from common.secagg.messages import (
    CONSENT_PURPOSE,
    KEY_PURPOSE,
    REPLY_PURPOSE,
    Consent,
    MaskedOrder,
    MaskedReply,
    Reveal,
    RevealRequest,
    SessionInvite,
    SessionKeys,
    SessionRoster,
    SessionShares,
    SurvivorSet,
    consent_content,
    join,
    pieces,
    reply_content,
)
from common.secagg.roster import checked_parts
from common.secagg.sealing import SEALED_BYTES, SharePair


class SiteHalf:
    """One site's part in every session of a run.

    Guarantees:
        *Pinned keys.* A roster counts only when each key in it is signed by the identity that the plan's roster gives
        to that name. *One roster a session*, and masks that are bound to it. *Threshold.* Nothing is masked for a
        cohort below the threshold, and nothing revealed for a survivor set below it or without as many signatures.
        *One kind of share.* `reveal` gives one share for each neighbour, and which one follows from the survivor set;
        that the set is the only one of its round is kept by the book of charges, which the node writes before it
        answers.
        *Same again.* The same request gives the same bytes, also after a kill. Missing sites reveal like survivors.

    Args:
        site: Name of the site.
        plan: The plan; its roster and parameters are what everything is checked against.
        identity: The key whose public half the plan's roster names.
        book: The session on disk.
        own_minimum: The site's own threshold; the larger of it and the plan's counts.

    Raises:
        IntegrityError: When the plan's roster has another key for this site.

    Source: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", figure 4, the
        variant for a coordinator that lies; neighbours as in Bell et al. 2020. What differs is in docs/protocol.md.
    """

    REFUSALS: ClassVar = (UnsafeRequestError, TooFewSitesAgreeError)

    def __init__(
        self, site: str, plan: Plan, identity: Ed25519PrivateKey, book: SessionBook, *, own_minimum: int = 0
    ) -> None:
        if plan.roster.get(site) != public_name(identity):
            raise IntegrityError(
                f"the plan's roster does not give site {site} the key that it holds", hint="enrol the site anew"
            )
        self._site, self._plan, self._identity, self._book = site, plan, identity, book
        self._plan_digest = plan.digest
        self._seen: SessionView | None = None
        self._threshold = max(plan.parameters.threshold, own_minimum)

    def keys(self, invite: SessionInvite, last_round: int) -> SessionKeys:
        """Step 2: draw the session's secret and publish the keys that follow from it.

        Args:
            invite: What the coordinator asks.
            last_round: The highest round this site was charged for; sessions are about later ones.

        Raises:
            UnsafeRequestError: When the rounds are past, too many, or another session of this id is running.
        """
        most = self._plan.secure_aggregation.session_rounds
        if not self._book.holds(invite):
            if invite.session == self._book.session:
                raise UnsafeRequestError("other-session", "the running session has other rounds")
            if not last_round < invite.first_round <= self._plan.rounds or invite.rounds > most:
                raise UnsafeRequestError("other-session", f"a session is for at most {most} rounds still to come")
            self._book.begin(invite)
        return self._signed_keys(invite)

    def _signed_keys(self, invite: SessionInvite) -> SessionKeys:
        scalars = (self._plan_digest, invite.session, invite.first_round, invite.rounds, self._site)
        unsigned = SessionKeys(*scalars, self._own_keys(), join([]))
        signature = sign(self._identity, KEY_PURPOSE, unsigned.signed_content())
        return SessionKeys(*scalars, unsigned.keys, join([signature]))

    def _own_keys(self) -> Bytes:
        secret = self._book.secret
        parts = [public_bytes(secret.channel_key())]
        for number in self._book.rounds:
            parts += [public_bytes(secret.mask_key(number)), seed_commitment(secret.self_seed(number))]
        return join(parts)

    def shares(self, roster: SessionRoster) -> SessionShares:
        """Step 4: check everybody's keys, and deal each neighbour its shares of every round's two secrets.

        Raises:
            UnsafeRequestError: When a key is not its site's, stands twice, or another roster was agreed to.
            TooFewSitesAgreeError: When the roster is below the threshold.
        """
        if not self._book.holds(roster):
            raise UnsafeRequestError("other-session", "this session was not begun here")
        if self._book.roster is None:
            self._check_roster(roster)
            self._book.agree_to(roster)
        elif self._book.roster.digest != roster.digest:
            raise UnsafeRequestError("bad-keys", "another roster was agreed to in this session")
        view = self._view()
        return SessionShares(self._plan_digest, roster.session, self._site, view.neighbours, join([view.sealed()]))

    def _check_roster(self, roster: SessionRoster) -> None:
        self._check_enough(roster.sites, "roster")
        try:
            parts = checked_parts(roster, self._plan.roster)
        except ProtocolError as error:
            raise UnsafeRequestError("bad-keys", error.message) from None
        if self._site not in parts or parts[self._site].keys.tobytes() != self._own_keys().tobytes():
            raise UnsafeRequestError("bad-keys", "this site's own keys are not in the roster")

    def terms(self, order: MaskedOrder) -> RoundTerms:
        """Before step 6: check an order, before anything is charged.

        Raises:
            UnsafeRequestError: When session, round or cohort are not those of the running session.
            TooFewSitesAgreeError: When the cohort is below the threshold.
        """
        view = self._view()
        if order.session != self._book.session or order.round_number not in view.rounds:
            raise UnsafeRequestError("other-session", "the order belongs to another session")
        if not set(order.cohort) <= set(view.parts) or self._site not in order.cohort:
            raise UnsafeRequestError("bad-cohort", "the cohort has others than the session's sites, or not this one")
        self._check_enough(order.cohort, "cohort")
        model = model_digest(order.weights, order.basis)
        return RoundTerms(round_context(view.digest, order.cohort, order.round_number, model), order.cohort)

    def mask(self, order: MaskedOrder, terms: RoundTerms, values: npt.NDArray[np.int64]) -> MaskedReply:
        """Step 6: the site's numbers under its masks.

        A second, different vector under the same masks would show the difference of the two: what is returned must be
        written down, and be the only answer of its round.

        Args:
            order: As checked by `terms`.
            terms: Of this order.
            values: Whole numbers, `[d]`.
        """
        seeds = self._view().seeds(order.round_number, terms.cohort, terms.context)
        masked = add_masks(fixed_point.encode(values), seeds)
        signature = sign(self._identity, REPLY_PURPOSE, reply_content(terms.context))
        scalars = (self._plan_digest, order.session, order.round_number, self._site)
        return MaskedReply(*scalars, masked, join([signature]))

    def check_survivors(self, request: SurvivorSet | RevealRequest, terms: RoundTerms) -> None:
        """Before steps 8 and 10: a set that this site could agree to.

        Raises:
            UnsafeRequestError: When session or sites are not those of the round.
            TooFewSitesAgreeError: When the set is below the threshold.
        """
        if request.session != self._book.session or request.round_number not in self._book.rounds:
            raise UnsafeRequestError("other-session", "the round belongs to another session")
        if not set(request.survivors) <= set(terms.cohort):
            raise UnsafeRequestError("bad-cohort", "the survivors are not all of the cohort")
        self._check_enough(request.survivors, "survivor set")

    def consent(self, request: SurvivorSet, terms: RoundTerms) -> Consent:
        """Step 8: sign the survivor set, which the node writes down as the only one of its round.

        That each survivor signed this very context keeps a coordinator from opening, as a survivor's, the self mask of
        a site that it told another cohort or model.

        Raises:
            UnsafeRequestError: When a survivor's reply is for another context.
        """
        self._check_replies(request, terms)
        signature = sign(self._identity, CONSENT_PURPOSE, consent_content(terms.context, request.survivors))
        scalars = (self._plan_digest, request.session, request.round_number, self._site)
        return Consent(*scalars, join([signature]))

    def _check_replies(self, request: SurvivorSet, terms: RoundTerms) -> None:
        signatures = _pieces(request.signatures, len(request.survivors), "other-context")
        content = reply_content(terms.context)
        for name, signature in zip(request.survivors, signatures, strict=True):
            if not is_signed_by(self._plan.roster[name], REPLY_PURPOSE, content, signature.tobytes()):
                raise UnsafeRequestError("other-context", f"the reply of {name} is for another context")

    def reveal(self, request: RevealRequest, terms: RoundTerms) -> Reveal:
        """Step 10: one share for each neighbour in the cohort, and for this site itself.

        Of t that agreed some are honest, and those have checked every survivor's reply: a site that lost step 7 on the
        way can rely on it.

        Raises:
            UnsafeRequestError: When shares are not what their dealers sealed for this site and round.
            TooFewSitesAgreeError: When fewer good signatures than the threshold are shown.
        """
        self._check_consents(request, terms)
        view = self._view()
        own = {self._site: view.own_pair(request.round_number)}
        pairs = _opened(view, request, terms.cohort) | own
        owners = tuple(sorted(pairs))
        survivors = set(request.survivors)
        shares = [pairs[name].self_seed if name in survivors else pairs[name].mask_key for name in owners]
        scalars = (self._plan_digest, request.session, request.round_number, self._site)
        return Reveal(*scalars, owners, join(shares))

    def _check_consents(self, request: RevealRequest, terms: RoundTerms) -> None:
        signatures = _pieces(request.signatures, len(request.signers), "too-few-consents")
        content = consent_content(terms.context, request.survivors)
        good = {
            name
            for name, signature in zip(request.signers, signatures, strict=True)
            if name in terms.cohort
            and is_signed_by(self._plan.roster[name], CONSENT_PURPOSE, content, signature.tobytes())
        }
        if len(good) < self._threshold:
            raise TooFewSitesAgreeError(
                "too-few-consents", f"{self._threshold} sites must agree on the survivors, and {len(good)} did"
            )

    def _check_enough(self, sites: tuple[str, ...], what: str) -> None:
        different = len(set(sites))
        if different < self._threshold:
            raise TooFewSitesAgreeError(
                "bad-cohort", f"a {what} must have {self._threshold} sites, and this one has {different}"
            )

    def _view(self) -> SessionView:
        roster = self._book.roster
        if roster is None:
            raise UnsafeRequestError("other-session", "no session's keys were agreed on here")
        if self._seen is None or self._seen.roster is not roster:
            self._seen = SessionView.of(self._site, self._plan, self._book.secret, roster)
        return self._seen


def _opened(view: SessionView, request: RevealRequest, cohort: tuple[str, ...]) -> dict[str, SharePair]:
    """Each neighbour's pair of shares, from what the coordinator relayed."""
    dealers = view.neighbours_in(cohort)
    try:
        if request.dealers != dealers:
            raise ProtocolError("the sealed shares are not those of this site's neighbours in the cohort")
        sealed = pieces(request.sealed, len(dealers), SEALED_BYTES, "sealed shares")
        return {
            name: _opened_pair(view, name, share.tobytes(), request.round_number)
            for name, share in zip(dealers, sealed, strict=True)
        }
    except ProtocolError as error:
        raise UnsafeRequestError("bad-share", error.message) from None


def _opened_pair(view: SessionView, dealer: str, sealed: bytes, round_number: int) -> SharePair:
    try:
        return view.opened(dealer, sealed, round_number)
    except ProtocolError as error:
        # Named in this site's own log: the dealer, or whoever relayed it, costs everybody the round.
        raise ProtocolError(f"what {dealer} dealt does not open: {error.message}") from None


def _pieces(signatures: Bytes, count: int, code: RefusalCode) -> list[Bytes]:
    try:
        return pieces(signatures, count, SIGNATURE_BYTES, "signatures")
    except ProtocolError as error:
        raise UnsafeRequestError(code, error.message) from None
