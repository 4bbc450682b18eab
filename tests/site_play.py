"""One enrolled site and the coordinator's hand: requests are sealed as the coordinator would, answers are read."""

from __future__ import annotations

import atexit
import shutil
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from client.approvals import approve
from client.home import SiteHome
from client.opening import OpenSite, open_site
from client.status import StatusBoard
from common.audit import read_audit
from common.envelope import Envelope, open_envelope, seal
from common.identity import public_name
from common.key_files import read_identity
from common.messages import Message, Refusal, RoundOrder, RoundReply
from common.moments import current_moment
from common.plan import BaseIdentity, Plan
from common.signed_plan import SignedPlan, sign_plan, write_signed_plan
from common.study_messages import BaseChunk, BaseNeed, PlanOffer
from common.wire import KINDS, decode, encode, subject
from server.home import CoordinatorHome
from tests.federation_play import Federation, make_federation


@dataclass
class SitePlay:
    """Site `a`, opened once it is asked for, and everything that its coordinator can say."""

    federation: Federation
    sequence: int = 0
    acknowledged: int = 0
    stack: ExitStack = field(default_factory=ExitStack)
    opened: OpenSite | None = None

    @property
    def home(self) -> SiteHome:
        return self.federation.sites["a"]

    @property
    def site(self):
        return self.open().site

    def open(self) -> OpenSite:
        if self.opened is None:
            self.opened = self.stack.enter_context(open_site(self.home, StatusBoard(self.home.status)))
        return self.opened

    def close(self) -> None:
        self.stack.close()
        self.stack, self.opened = ExitStack(), None

    # --- what the coordinator says ---

    @property
    def coordinator(self):
        return read_identity(self.federation.coordinator.identity_key)

    def seal(self, body: bytes, plan: str, number: int = 0, **changes: Any) -> bytes:
        self.sequence += 1
        invitation = self.open().pinned.invitation
        fields = {
            "federation": invitation.federation,
            "plan_digest": plan,
            "round_number": number,
            "sequence": self.sequence,
            "acknowledged": self.acknowledged,
            "sender": "coordinator",
            "recipient": "a",
            "sender_key": invitation.coordinator,
            "recipient_key": invitation.site_public,
            "body": body,
        }
        return seal(Envelope(**{**fields, **changes}), changes.pop("identity", self.coordinator))

    def request(self, message: Message, **changes: Any) -> bytes:
        frame = encode(message)
        plan, number = subject(frame)
        return self.seal(frame, plan, number, **changes)

    def ask(self, message: Message, **changes: Any) -> Message:
        """Send, and read the answer."""
        answer = self.site.answer(self.request(message, **changes))
        return read_answer(answer)

    def offer(self, signed: SignedPlan) -> Message:
        return self.ask(PlanOffer(signed.digest, np.frombuffer(write_signed_plan(signed), np.uint8)))

    # --- plans ---

    def sign(self, plan: Plan, *, approved: bool = True, days: float = 9, identity=None) -> SignedPlan:
        """Any plan that parses, signed for this federation."""
        now = current_moment()
        end = now + timedelta(days=days)
        federation = self.open().pinned.invitation.federation
        signed = sign_plan(plan, federation, now, end, identity or self.coordinator)
        if approved:
            approve(self.home, signed.digest, "tester", signed.valid_until)
        return signed

    def events(self) -> list[Any]:
        """What the audit log tells, oldest first."""
        public = public_name(read_identity(self.home.identity_key))
        return [entry.event for entry in read_audit(self.home.audit, self.home.audit_anchor, public).entries]

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events() if isinstance(event, kind)]


def read_answer(answer: bytes | None) -> Message:
    assert answer is not None
    return decode(bytes(open_envelope(answer, len(answer)).body), *KINDS.values())


def make_site_play(folder: Path) -> SitePlay:
    """A federation as it is before the first plan; a copy of one that is made once."""
    made = _template()
    shutil.copytree(made.coordinator.path.parent, folder, dirs_exist_ok=True)  # the base too: a test may spoil its own
    sites = {name: SiteHome(folder / name / "home") for name in made.sites}
    return SitePlay(Federation(CoordinatorHome(folder / "coordinator"), sites))


@cache
def _template() -> Federation:
    """A base of two files that nobody loads will do: what loads it is another's business."""
    folder = Path(mkdtemp(prefix="cloister-play-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    base = folder / "small"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights" * 10)
    return make_federation(folder, base, ("a", "b", "c", "d"))


def other_base(plan: Plan, **files: str) -> Plan:
    """The same plan on another base."""
    base = BaseIdentity(name="tiny", files=files)
    return Plan.model_validate({**plan.model_dump(), "base": base.model_dump()})


# --- a site whose model is made up -----------------------------------------------------------------------------------


def order(signed, number=1):
    """A round's order, for a model of three values."""
    return RoundOrder(signed.digest, number, np.zeros(3, np.float32), np.zeros(0, np.float32))


class FakeNode:
    """Gives a reply as a real node does: a frame that came through an outbox."""

    def __init__(self, plan):
        self.plan = plan
        self.error = None

    def answer(self, request):
        if self.error is not None:
            raise self.error
        return encode(RoundReply(self.plan, 1, "a", np.zeros(3, np.float32)))


class Opener:
    """Opens nodes as `client.opening` does, and writes down when records would be read."""

    def __init__(self, play):
        self.play, self.happened, self.errors, self.alive, self.most_alive = play, [], [], [], 0
        self.values = 30

    def __call__(self, signed, base, admit):
        assert base.find() is not None
        self.most_alive = max(self.most_alive, 1 + sum(ref() is not None for ref in self.alive))
        self.happened.append("base")
        admit(self.values)
        assert self.play.site.acceptance.is_reserved(signed.digest), "records are read before the cost is set aside"
        self.happened.append("records")
        if self.errors:
            raise self.errors.pop(0)
        node = FakeNode(signed.digest)
        node.itself = node  # a circle, as a model's hooks make one
        self.alive.append(weakref.ref(node))
        return node


def chunks(play, signed):
    """The base, one chunk a file."""
    for number, name in enumerate(sorted(signed.plan.base.files), start=1):
        content = np.frombuffer((play.federation.base / name).read_bytes(), np.uint8)
        yield BaseChunk(signed.digest, number, 1, 1, content)


def hand_out(play, signed):
    """Send the whole base; gives the last answer."""
    for chunk in chunks(play, signed):
        answer = play.ask(chunk)
    return answer


def ready(play, signed):
    """Offer a plan and send its base, so that the next request is a round's."""
    play.offer(signed)
    assert hand_out(play, signed) == BaseNeed(signed.digest, "a", "complete", 0, 0)


def code(message):
    """Of a refusal."""
    assert isinstance(message, Refusal), message
    return message.code
