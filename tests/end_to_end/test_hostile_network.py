"""Coordinator and site over a network that drops, repeats, reorders and alters, while the site is killed at any write.

The oracle is written another way than the code: it keeps lists of everything that was ever sealed, handled and let out,
and states what must hold of the lists.
"""

import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import mkdtemp

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import client.sealed_file
import server.envelopes
from client.inbox import Inbox, NotFromCoordinatorError, UnfitEnvelopeError
from client.inbox_record import InboxRecord
from common.envelope import Envelope, SealedEnvelope, open_envelope
from common.errors import IntegrityError
from common.files import write_durably
from common.messages import Refusal
from common.study_messages import RunOver
from common.wire import encode
from server.envelopes import SealedTransport
from server.sequences import Sequences
from tests.vectors.envelope.make import FEDERATION, public, secret
from tests.vectors.wire.make import PLAN

SITES = ("north", "south")
KEYS = {name: Ed25519PrivateKey.from_private_bytes(secret(name)) for name in ("coordinator", *SITES)}
PUBLICS = {name: public(name) for name in SITES}
LIMIT_BYTES = 1 << 16
picks = st.integers(0, 5)  # how many before the last
places = st.integers(0, 1 << 30)


class Killed(BaseException):
    """The process ends here, at a durable write."""


class Disk:
    """Writes that end the process at a chosen one, before or after it has landed."""

    def __init__(self) -> None:
        self.writes_left = None
        self.lands = False

    def write(self, path, content, mode=0o644):
        if self.writes_left is None:
            return write_durably(path, content, mode)
        self.writes_left -= 1
        if self.writes_left >= 0 or self.lands:
            write_durably(path, content, mode)
        if self.writes_left < 0:
            raise Killed
        return None


class Site:
    """A site that works off requests; what it does for one is another frame each time, unlike any real one's."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        folder.mkdir()
        self.begun = False
        self.handled = []  # (sequence, request) each time one is handled
        self.released = defaultdict(set)  # request bytes -> what left in answer, but for refusals
        self.start()

    def start(self):
        self.inbox = Inbox(
            self.folder / "inbox.record", FEDERATION, self.name, KEYS[self.name], public("coordinator"), self.begun
        )
        self.begun = True

    def deliver(self, request):
        """What leaves for these bytes, if anything does."""
        try:
            opened = self.inbox.open(request, LIMIT_BYTES)
        except NotFromCoordinatorError:
            return None
        except UnfitEnvelopeError as error:  # and no false alarm about a rollback
            return self.inbox.refuse(error, self.frame(error.code))
        if opened.kept is None:
            self.handled.append((opened.envelope.sequence, request))
            reply = self.inbox.reply(opened, self.frame("no-update"))
        else:
            reply = opened.kept
        self.released[request].add(reply)
        return reply

    def frame(self, code):
        return encode(Refusal(PLAN, len(self.handled), self.name, code))


def before_last(things, count):
    return things[-1 - count % len(things)]


class Mailbag:
    """The coordinator's transport: hands over what the network kept for it, and perhaps asks the sites at once."""

    def __init__(self, bring):
        self.bring = bring
        self.asked = []  # every (site, request) that was ever sent
        self.shown = []  # every (label, answer) of the exchange that is running
        self.waiting = []
        self.prompt = False

    def exchange(self, orders):
        self.asked += orders.items()
        self.shown, self.waiting = self.waiting, []
        for site, request in orders.items() if self.prompt else ():
            answer = self.bring(site, request)
            self.shown += [(label, answer) for label in SITES]
        yield from self.shown


class HostileNetwork(RuleBasedStateMachine):
    """Two sites, so that what is one's can be shown as the other's."""

    def __init__(self):
        super().__init__()
        self.folder = Path(mkdtemp(prefix="hostile-network-"))
        self.patch = pytest.MonkeyPatch()
        self.disk = Disk()
        self.patch.setattr(client.sealed_file, "write_durably", self.disk.write)
        self.answers = []  # every (site, answer) that ever left
        self.mailbag = Mailbag(self.bring)
        self.sites = {name: Site(name, self.folder / name) for name in SITES}
        self.restart_coordinator()

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.folder)

    # --- the coordinator ---

    @rule()
    def restart_coordinator(self):
        sequences = Sequences(self.folder / "sequences.json", FEDERATION)
        self.transport = SealedTransport(self.mailbag, KEYS["coordinator"], FEDERATION, PUBLICS, sequences)

    @rule(names=st.sampled_from([("north",), ("south",), SITES]))
    def ask(self, names):
        """Two exchanges whose orders stay under way: what comes is what the network had kept."""
        for _ in range(2):
            assert self.exchange(names, prompt=False) == []

    @rule(names=st.sampled_from([("north",), ("south",), SITES]))
    def ask_and_hear(self, names):
        assert self.exchange(names, prompt=True) == list(names)

    def exchange(self, names, prompt):
        """What comes out is what each site said to this very order, all of it and nothing else."""
        self.mailbag.prompt = prompt
        heard = list(self.transport.exchange(dict.fromkeys(names, encode(RunOver(PLAN, "finished")))))
        requests = {site: open_envelope(request).digest for site, request in self.mailbag.asked[-len(names) :]}
        assert heard == [
            (label, bytes(open_envelope(answer).body))
            for label, answer in self.mailbag.shown
            if (label, answer) in self.answers and open_envelope(answer).header["answers"] == requests.get(label)
        ]
        return [site for site, _ in heard]

    # --- the network ---

    @precondition(lambda self: self.mailbag.asked)
    @rule(which=picks)
    def deliver(self, which):
        """A request that was sent before, once more or at last."""
        self.bring(*before_last(self.mailbag.asked, which))

    @precondition(lambda self: self.mailbag.asked)
    @rule(which=picks, to=st.sampled_from(SITES))
    def misdirect(self, which, to):
        self.bring(to, before_last(self.mailbag.asked, which)[1])

    @precondition(lambda self: self.mailbag.asked)
    @rule(which=picks, writes=st.integers(0, 2), lands=st.booleans(), older=st.integers(0, 4))
    def deliver_and_kill(self, which, writes, lands, older):
        """The site ends at its first, second or third durable write, starts again, and is sent older requests first."""
        to, request = before_last(self.mailbag.asked, which)
        self.disk.writes_left, self.disk.lands = writes, lands
        try:
            self.bring(to, request)
        except Killed:
            pass
        finally:
            self.disk.writes_left = None
        self.sites[to].start()
        for count in reversed(range(older)):
            self.bring(*before_last(self.mailbag.asked, which + count))

    @precondition(lambda self: self.mailbag.asked)
    @rule(which=picks, place=places, mask=st.integers(1, 255))
    def deliver_altered(self, which, place, mask):
        to, request = before_last(self.mailbag.asked, which)
        handled = list(self.sites[to].handled)
        changed = bytearray(request)
        changed[place % len(changed)] ^= mask
        assert self.sites[to].deliver(bytes(changed)) is None, "an altered request was answered"
        assert self.sites[to].handled == handled

    @precondition(lambda self: self.answers)
    @rule(which=picks, label=st.sampled_from(SITES))
    def bring_back(self, which, label):
        """Any answer that ever left, in any site's name, during the next exchange."""
        self.mailbag.waiting.append((label, before_last(self.answers, which)[1]))

    @precondition(lambda self: self.answers)
    @rule(which=picks, place=places, mask=st.integers(1, 255))
    def bring_back_altered(self, which, place, mask):
        label, answer = before_last(self.answers, which)
        changed = bytearray(answer)
        changed[place % len(changed)] ^= mask
        self.mailbag.waiting.append((label, bytes(changed)))

    def bring(self, to, request):
        answer = self.sites[to].deliver(request)
        if answer is not None:
            self.answers.append((to, answer))
        return answer

    # --- what must hold ---

    @invariant()
    def one_request_has_one_reply(self):
        for site in self.sites.values():
            assert all(len(replies) == 1 for replies in site.released.values())

    @invariant()
    def requests_are_handled_in_order_and_one_number_is_one_request(self):
        for site in self.sites.values():
            numbers = [sequence for sequence, _ in site.handled]
            assert numbers == sorted(numbers)
            assert len(set(site.handled)) == len(set(numbers))

    @invariant()
    def what_was_answered_is_not_handled_again(self):
        """Each handling makes a frame that counts them, so that a reply tells which handling it is of: the last one."""
        for site in self.sites.values():
            for request, (reply,) in site.released.items():
                last = max(place for place, (_, other) in enumerate(site.handled, 1) if other == request)
                assert open_envelope(reply).body == encode(Refusal(PLAN, last, site.name, "no-update"))

    @invariant()
    def only_what_the_coordinator_sent_to_a_site_is_handled_there(self):
        for site in self.sites.values():
            assert all((site.name, request) in self.mailbag.asked for _, request in site.handled)

    @invariant()
    def every_request_has_a_number_of_its_own(self):
        named = [(to, open_envelope(request).header["sequence"]) for to, request in self.mailbag.asked]
        assert len(set(named)) == len(named)


HostileNetwork.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestHostileNetwork = HostileNetwork.TestCase


# --- the oracle can say no -------------------------------------------------------------------------------------------


def begin_in_memory(record, sequence, request):
    about = {"last_sequence": sequence, "last_request": request, "last_reply": ""}
    record._entry = record._entry.model_copy(update=about)


def keep_any_reply(record, request, reply):
    record._write(record._entry.model_copy(update={"answered": record.last_sequence, "last_reply": "1" * 64}))


def body_without_a_check(sealed, public):
    said = {name: value for name, value in sealed.header.items() if name != "body_bytes"}
    return Envelope(**said, body=bytes(sealed.body))


PLANTED = {
    "requests are begun in memory": {"begin": begin_in_memory, "_check_unchanged": lambda record: None},
    "a repeat gets a new reply": {"kept_reply": lambda record: None, "keep_reply": keep_any_reply},
    "addresses are not looked at": {"_check_address": lambda inbox, opened: None},
    "signatures are not looked at": {"checked": body_without_a_check},
    "numbers are not written down": {"save": lambda sequences: None},
    "a late answer counts": {"_place_fault": lambda request, answer: None},
}
OWNERS = (InboxRecord, Inbox, SealedEnvelope, Sequences, server.envelopes)


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault, monkeypatch):
    for name, instead in PLANTED[fault].items():
        monkeypatch.setattr(next(owner for owner in OWNERS if name in vars(owner)), name, instead)
    found = settings(max_examples=200, stateful_step_count=20, phases=[Phase.generate], derandomize=True, database=None)
    # Either the oracle says so, or the site finds its own files at odds with each other.
    with pytest.raises((AssertionError, IntegrityError)):
        run_state_machine_as_test(HostileNetwork, settings=found)
