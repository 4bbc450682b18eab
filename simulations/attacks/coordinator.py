"""The steps of a coordinator, each of which can be taken honestly or with a lie; docs/protocol.md numbers them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from client.session_view import SessionView
from common.identity import SIGNATURE_BYTES, sign
from common.messages import Message
from common.secagg.keys import SessionSecret
from common.secagg.masking import model_digest, round_context
from common.secagg.messages import (
    CONSENT_PURPOSE,
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
    reply_content,
)
from server.secagg import Session
from simulations.attacks.hospitals import COLLUDER, DIMENSION, NAMES, Study
from simulations.attacks.whole_view import WholeView

SESSION = "5e" * 32
Consents = Mapping[str, bytes]


class HostileCoordinator:
    """Sends what it likes to whom it likes, and keeps all that comes back; `west` tells it everything.

    Args:
        study: The hospitals.
        colluders: Who tells all.
    """

    def __init__(self, study: Study, colluders: tuple[str, ...] = (COLLUDER,)) -> None:
        self.study, self.plan, self.colluders = study, study.plan, colluders
        self.view = WholeView(study.plan, colluders)
        # A colluder forgets no session: its secrets by the public keys that follow from them.
        self._kept: dict[bytes, SessionSecret] = {}
        # The signature of each reply that came, by session, round and name, whatever context it is for.
        self._replied: dict[tuple[str, int, str], bytes] = {}

    def ask(self, name: str, message: Message) -> Message:
        """One message to one hospital."""
        return self.study.ask(name, message)

    # --- once a session ---

    def invite(
        self, session: str = SESSION, first_round: int = 1, names: Iterable[str] = NAMES, rounds: int = 2
    ) -> dict[str, SessionKeys]:
        """Steps 1 and 2: the keys of those that answer."""
        invite = SessionInvite(self.plan.digest, session, first_round, rounds)
        answers = {name: self.ask(name, invite) for name in names}
        parts = {name: answer for name, answer in answers.items() if isinstance(answer, SessionKeys)}
        for name in set(self.colluders) & set(parts):
            self._kept[parts[name].keys.tobytes()] = self.study.hospitals[name].tell()
        return parts

    def show(self, roster: SessionRoster, to: Iterable[str] | None = None) -> Session:
        """Steps 3 and 4: a session of those that deal their shares; a colluder deals for any roster."""
        names = set(roster.sites if to is None else to)
        answers = {name: self.ask(name, roster) for name in sorted(names - set(self.colluders))}
        dealt = {name: answer for name, answer in answers.items() if isinstance(answer, SessionShares)}
        views = {name: self._view_of(name, roster) for name in set(self.colluders) & set(roster.sites)}
        for name, view in views.items():
            scalars = (self.plan.digest, roster.session, name)
            dealt[name] = SessionShares(*scalars, view.neighbours, join([view.sealed()]))
        for view in views.values():
            self.view.told(view, dealt)
        return Session(self.plan, roster, dealt)

    def _view_of(self, name: str, roster: SessionRoster) -> SessionView:
        secret = self._kept[roster.parts()[name].keys.tobytes()]
        return SessionView.of(name, self.plan, secret, roster)

    def open_session(self, session: str = SESSION, first_round: int = 1) -> Session:
        """Steps 1 to 4, without a lie."""
        return self.show(SessionRoster.of(self.invite(session, first_round).values()))

    # --- in a round ---

    def order(
        self, session: Session, number: int = 1, cohort: Iterable[str] | None = None, model: float = 0.0
    ) -> MaskedOrder:
        """Step 5: an order; the model is a number that stands at every place."""
        weights = np.full(DIMENSION, model, np.float32)
        names = session.cohort if cohort is None else tuple(cohort)
        return MaskedOrder(self.plan.digest, session.id, number, names, weights, np.zeros(0, np.float32))

    def collect(self, session: Session, order: MaskedOrder, names: Iterable[str] = NAMES) -> tuple[str, ...]:
        """Steps 5 and 6: which honest hospitals replied."""
        replied = []
        for name in self._honest(names):
            answer = self.ask(name, order)
            if isinstance(answer, MaskedReply):
                self.view.reply(session.roster, order, answer)
                self._replied[order.session, order.round_number, name] = answer.signature.tobytes()
                replied.append(name)
        return tuple(replied)

    def consents(
        self, session: Session, order: MaskedOrder, survivors: Iterable[str], names: Iterable[str]
    ) -> Consents:
        """Steps 7 and 8: the signatures of those that agree. A colluder signs whatever it is asked."""
        asked = self.survivor_set(session, order, survivors)
        good = {}
        for name in names:
            if name in self.colluders:
                good[name] = self.signature_of(name, session, order, asked.survivors)
                continue
            answer = self.ask(name, asked)
            if isinstance(answer, Consent):
                good[name] = answer.signature.tobytes()
        return dict(sorted(good.items()))

    def signature_of(self, name: str, session: Session, order: MaskedOrder, survivors: tuple[str, ...]) -> bytes:
        """A consent by a colluder's identity."""
        content = consent_content(_context(session, order), survivors)
        return sign(self.study.hospitals[name].identity, CONSENT_PURPOSE, content)

    def survivor_set(self, session: Session, order: MaskedOrder, survivors: Iterable[str]) -> SurvivorSet:
        """What step 7 says, with the best signature that there is of each survivor's reply."""
        names = tuple(sorted(survivors))
        signatures = join([self._reply_signature(name, session, order) for name in names])
        return SurvivorSet(order.plan_digest, order.session, order.round_number, names, signatures)

    def _reply_signature(self, name: str, session: Session, order: MaskedOrder) -> bytes:
        """By a colluder for any context; by another hospital for the one that it replied in, or forged."""
        if name in self.colluders:
            return sign(self.study.hospitals[name].identity, REPLY_PURPOSE, reply_content(_context(session, order)))
        return self._replied.get((order.session, order.round_number, name), bytes(SIGNATURE_BYTES))

    def reveals(
        self, session: Session, order: MaskedOrder, survivors: Iterable[str], consents: Consents, names: Iterable[str]
    ) -> None:
        """Steps 9 and 10: shares of those that give them."""
        asked = self.survivor_set(session, order, survivors)
        for name in self._honest(names):
            answer = self.ask(name, self.reveal_request(session, order, asked, consents, name))
            if isinstance(answer, Reveal):
                self.view.reveal(session.roster, asked, answer)

    def reveal_request(
        self, session: Session, order: MaskedOrder, asked: SurvivorSet, consents: Consents, name: str
    ) -> RevealRequest:
        """What step 9 says to one hospital."""
        dealers = tuple(peer for peer in session.neighbours[name] if peer in set(order.cohort) & set(session.dealt))
        sealed = [session.sealed(dealer, name, order.round_number).tobytes() for dealer in dealers]
        shown = (tuple(consents), join(list(consents.values())))
        return RevealRequest(
            asked.plan_digest, asked.session, asked.round_number, asked.survivors, *shown, dealers, join(sealed)
        )

    def _honest(self, names: Iterable[str]) -> list[str]:
        """Those that have to be asked: what a colluder would answer is known."""
        return [name for name in names if name not in self.colluders]

    def open_sum(self, session: Session, order: MaskedOrder, survivors: Iterable[str], names: Iterable[str]) -> None:
        """Steps 7 to 10 with these survivors, at these hospitals; a lie where the survivors are no such."""
        survivors, names = tuple(survivors), tuple(names)
        consents = self.consents(session, order, survivors, names)
        if consents:
            self.reveals(session, order, survivors, consents, names)

    def play(self, session: Session, number: int = 1, model: float = 0.0) -> MaskedOrder:
        """Steps 5 to 10 without a lie: `west` is missing."""
        order = self.order(session, number, model=model)
        survivors = self.collect(session, order)
        self.open_sum(session, order, survivors, NAMES)
        return order


def _context(session: Session, order: MaskedOrder) -> str:
    model = model_digest(order.weights, order.basis)
    return round_context(session.digest, order.cohort, order.round_number, model)
