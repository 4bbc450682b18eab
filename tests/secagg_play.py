"""Hospitals and a coordinator in one room, for tests in which a message is lost or altered."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg import SiteHalf
from client.session import SessionBook
from client.session_view import RoundTerms
from common.identity import new_identity, public_name
from common.plan import Plan
from common.secagg.masking import model_digest
from common.secagg.messages import Consent, MaskedOrder, RevealRequest, SessionInvite, SessionRoster, SurvivorSet
from server.secagg import CoordinatorRound, Session
from tests.plans import make_plan

SESSION = "5e" * 32
NOTHING: Collection[str] = ()


@dataclass
class Study:
    """Enrolled sites, and the plan that names them."""

    plan: Plan
    identities: dict[str, Ed25519PrivateKey]
    sites: dict[str, SiteHalf]

    @property
    def names(self) -> list[str]:
        return sorted(self.sites)

    def invite(self, rounds: int = 1, session: str = SESSION, first_round: int = 1) -> SessionInvite:
        return SessionInvite(self.plan.digest, session, first_round, rounds)

    def roster(
        self, rounds: int = 1, without: Collection[str] = NOTHING, session: str = SESSION, first_round: int = 1
    ) -> SessionRoster:
        """Steps 1 and 2, with some sites' keys lost."""
        invite = self.invite(rounds, session, first_round)
        return SessionRoster.of(site.keys(invite, 0) for name, site in self.sites.items() if name not in without)

    def session(self, roster: SessionRoster, without: Collection[str] = NOTHING) -> Session:
        """Steps 3 and 4, with some sites' shares lost."""
        dealers = [name for name in roster.sites if name not in without]
        return Session(self.plan, roster, {name: self.sites[name].shares(roster) for name in dealers})


@dataclass
class Round:
    """One round from step 5 on; each step may lose the messages of some sites."""

    study: Study
    session: Session
    order: MaskedOrder
    coordinator: CoordinatorRound
    terms: dict[str, RoundTerms] = field(default_factory=dict)

    def mask(self, inputs: dict[str, np.ndarray]) -> None:
        """Steps 5 and 6: everybody in the cohort is asked, and the inputs that are given arrive."""
        for name in self.session.cohort:
            self.terms[name] = self.study.sites[name].terms(self.order)
            if name in inputs:
                self.coordinator.add(self.study.sites[name].mask(self.order, self.terms[name], inputs[name]))

    def consent_of(self, site: str, request: SurvivorSet | None = None) -> Consent:
        """Step 8 at one site."""
        request = request or self.coordinator.survivor_set()
        self.study.sites[site].check_survivors(request, self.terms[site])
        return self.study.sites[site].consent(request, self.terms[site])

    def agree(self, sites: Collection[str]) -> None:
        """Steps 7 and 8."""
        for name in sites:
            consent = self.consent_of(name)
            assert self.coordinator.is_good(consent)
            self.coordinator.agree(consent)

    def reveal_of(self, site: str, request: RevealRequest | None = None):
        """Step 10 at one site."""
        request = request or self.coordinator.reveal_request(site)
        self.study.sites[site].check_survivors(request, self.terms[site])
        return self.study.sites[site].reveal(request, self.terms[site])

    def reveal(self, sites: Collection[str]) -> None:
        """Steps 9 and 10."""
        for name in sites:
            answer = self.reveal_of(name)
            assert self.coordinator.fits(answer)
            self.coordinator.open(answer)


def make_study(folder: Path, sites: int = 4, dropouts: int = 1, colluders: int = 1, rounds: int = 2, **terms) -> Study:
    """A study with sites a00, a01, …; `terms` are of the plan's secure aggregation."""
    folder = Path(mkdtemp(dir=folder))  # Hypothesis hands every example the same folder
    identities = {f"a{number:02}": new_identity() for number in range(sites)}
    limits = {"masked": True, "tolerated_dropouts": dropouts, "tolerated_colluders": colluders, **terms}
    roster = {name: public_name(identity) for name, identity in identities.items()}
    plan = make_plan(sites=sites, rounds=rounds, roster=roster, secure_aggregation=limits)
    study = Study(plan, identities, {})
    for name in identities:
        study.sites[name] = make_site(study, name, folder)
    return study


def make_site(study: Study, name: str, folder: Path, **limits: int) -> SiteHalf:
    """A site with its book in a folder of its own; the same folder again is the same site after a kill."""
    own = folder / name
    own.mkdir(exist_ok=True)
    return SiteHalf(name, study.plan, study.identities[name], SessionBook(own, study.plan.digest, name), **limits)


def start_round(
    study: Study, session: Session, dimension: int = 3, number: int = 1, cohort: tuple[str, ...] | None = None
) -> Round:
    """A round on a model of so many zeros."""
    model, basis = np.zeros(dimension, np.float32), np.zeros(0, np.float32)
    order = MaskedOrder(study.plan.digest, session.id, number, cohort or session.cohort, model, basis)
    return Round(study, session, order, CoordinatorRound(session, order, model_digest(model, basis)))


def random_inputs(names: Collection[str], dimension: int, seed: int) -> dict[str, np.ndarray]:
    """Whole numbers whose sum may use all 32 bits."""
    reach = (2**31 - 1) // max(1, len(names))
    generator = np.random.default_rng(seed)
    return {name: generator.integers(-reach, reach, dimension, dtype=np.int64, endpoint=True) for name in names}
