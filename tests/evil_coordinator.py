"""A coordinator with the real key, made to say what a test likes to one site of a real federation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from client.approvals import approve
from client.home import SiteHome
from client.keys import site_identity
from client.opening import OpenSite, open_site
from client.outbox import RELEASE_CLASSES
from client.status import StatusBoard
from common.enrolment import federation_id
from common.envelope import COORDINATOR, Envelope, seal
from common.identity import public_name
from common.key_files import read_identity
from common.messages import Message, Refusal
from common.moments import current_moment
from common.plan import Plan
from common.secagg.messages import MaskedOrder, SessionInvite
from common.signed_plan import SignedPlan, sign_plan, write_signed_plan
from common.study_messages import PlanOffer
from common.wire import decode, encode, kind_of, subject
from tests.crash_play import Stage
from tests.ledger_watch import Watch, body_of

SITE = "a"
OTHER = "5" * 64


@dataclass
class Evil:
    """Says what it likes to one site, in envelopes that are as they should be unless told otherwise."""

    stage: Stage
    home: SiteHome
    site: OpenSite
    said: list[tuple[bytes, bytes]] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    paid: list[str] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        return self.stage.signed.plan

    @property
    def key(self):
        return read_identity(self.stage.federation.coordinator.identity_key)

    @property
    def federation(self) -> str:
        return federation_id("play", public_name(self.key))

    def say(self, message: Message, **changes: object) -> Message | None:
        """Send a message in an envelope; gives what came back."""
        frame = encode(message)
        plan, number = subject(frame)
        inbox = self.site.site.inbox
        place = (inbox.last_sequence + 1, inbox.answered)
        envelope = Envelope(self.federation, plan, number, *place, COORDINATOR, SITE, frame, **self.keys)
        return self.send(seal(replace(envelope, **changes), self.key))

    @property
    def keys(self) -> dict[str, str]:
        """Of both ends, as they stand in an envelope to the site."""
        return {"sender_key": public_name(self.key), "recipient_key": public_name(site_identity(self.home))}

    def send(self, request: bytes) -> Message | None:
        answer = self.site.site.answer(request)
        if answer is None:
            return None
        self.heard.append(answer)
        body = body_of(answer)
        return decode(body, kind_of(body))

    def offer(self, plan: Plan, *, approved: bool = False, **changes: object) -> Message | None:
        """Sign a plan and offer it, where the test says so approved by somebody who was deceived."""
        signed = self.sign(plan, **changes)
        if approved:
            approve(self.home, signed.digest, "tester", signed.valid_until)
        return self.say(offer_of(signed))

    def sign(self, plan: Plan, **changes: object) -> SignedPlan:
        now = current_moment()
        terms = {"federation": self.federation, "issued": now, "valid_until": now + timedelta(days=9), **changes}
        return sign_plan(plan, terms["federation"], terms["issued"], terms["valid_until"], self.key)

    def invite(self, plan_digest: str | None = None, first_round: int = 2) -> SessionInvite:
        """What a round begins with, and the first that would be answered with more than public fields."""
        return SessionInvite(plan_digest or self.plan.digest, OTHER, first_round, 1)

    def order(self, **changes: object) -> MaskedOrder:
        """The order that the site took in round 1, with something changed."""
        bodies = [body_of(request) for request, _ in self.said]
        (order,) = [decode(body, MaskedOrder) for body in bodies if kind_of(body) is MaskedOrder]
        return replace(order, **changes)


def offer_of(signed: SignedPlan, digest: str | None = None) -> PlanOffer:
    document = np.frombuffer(write_signed_plan(signed), dtype=np.uint8)
    return PlanOffer(digest or signed.digest, document)


@contextmanager
def evil_in(
    stage: Stage, kept: Path | None, watch: Watch | None = None, *, budget: float = 100.0, policy: str = ""
) -> Iterator[Evil]:
    """A site and its new master; at the end nothing has been given away."""
    with stage.lives(kept=kept) as lives:
        home = lives.federation.sites[SITE]
        text = home.config.read_text().replace("[policy]\n", f"[policy]\n{policy}")
        home.config.write_text(text.replace("epsilon = 100.0", f"epsilon = {budget}"))
        with open_site(home, StatusBoard(home.status)) as site:
            evil = Evil(stage, home, site, [] if watch is None else watch.conversation[SITE])
            before = len(site.ledger.entries())
            yield evil
            assert_public(evil.heard)
            assert [row.meaning.plan_digest for row in site.ledger.entries()[before:]] == evil.paid
            assert not lives.watch.touched
            assert site.site.fatal is None


def assert_public(answers: list[bytes]) -> None:
    """Every field of every answer is of class public, as the outbox's list has it."""
    for answer in answers:
        assert set(RELEASE_CLASSES[kind_of(body_of(answer))].values()) == {"public"}


def code(answer: Message | None) -> str:
    assert isinstance(answer, Refusal), answer
    return answer.code
