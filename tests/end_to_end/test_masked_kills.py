"""Killed between any two messages, or at any write, and resumed: the same model, and nothing said in two ways.

The whole system dies (coordinator and sites), or the coordinator alone, or one site alone while the others go on.
"""

from collections import defaultdict

import numpy as np
import pytest

import client.sealed_file
import server.sealed_arrays
from common.errors import IntegrityError
from common.fields import RefusalCode
from common.messages import Refusal, RoundOrder
from common.secagg.messages import Consent, MaskedReply, Reveal, RevealRequest, SurvivorSet
from common.wire import decode
from server.checkpoint import load_checkpoint
from server.run import RunOutcome, run
from tests.masked_sites import DIMENSION, NOTHING, DigitTrainer, Door, Hospitals, grid_total, make_hospitals, present

ROUNDS = 2
SITES = 3
PLAN = {"sites": SITES, "dropouts": 1, "colluders": 0, "rounds": ROUNDS}
ONE_SESSION = {**PLAN, "secure_aggregation": {"session_rounds": 2}}
TWO_SESSIONS = {**PLAN, "secure_aggregation": {"session_rounds": 1}}
SESSIONS = pytest.mark.parametrize("plan", [ONE_SESSION, TWO_SESSIONS], ids=["one session", "two sessions"])
SLOW_ONE, SLOW_TWO = (pytest.param(plan, marks=pytest.mark.slow) for plan in (ONE_SESSION, TWO_SESSIONS))
NEVER = 0


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class NoAnswerError(Exception):
    """A site is gone before it answered."""


class Killer:
    """Counts moments and kills at the one with the given number."""

    def __init__(self, moment: int) -> None:
        self.moment, self.count = moment, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.moment:
            raise KilledError


class Watch:
    """Everything that ever left a site, over all lives."""

    def __init__(self) -> None:
        self.said: dict[tuple[type, str, int], set[bytes]] = defaultdict(set)
        self.sets: dict[tuple[str, int], set[tuple[str, ...]]] = defaultdict(set)
        self.codes: set[RefusalCode] = set()

    def see(self, site: str, request: bytes, answer: bytes) -> None:
        message = decode(answer, Refusal, MaskedReply, Consent, Reveal) if is_of_a_round(answer) else None
        if isinstance(message, Refusal):
            self.codes.add(message.code)
        elif message is not None:
            self.said[type(message), site, message.round_number].add(answer)
        if isinstance(message, Consent | Reveal):
            asked = decode(request, SurvivorSet, RevealRequest)
            self.sets[site, asked.round_number].add(asked.survivors)

    def assert_nothing_was_said_in_two_ways(self) -> None:
        assert max(map(len, self.said.values())) == 1
        assert max(map(len, self.sets.values())) == 1


def is_of_a_round(answer: bytes) -> bool:
    try:
        decode(answer, Refusal, MaskedReply, Consent, Reveal)
    except IntegrityError:
        return False
    return True


class Mortal:
    """A transport on which every message may be the last thing that happens."""

    def __init__(self, doors, killer, watch) -> None:
        self.doors, self.killer, self.watch = doors, killer, watch

    def exchange(self, orders):
        for site, request in orders.items():
            self.killer()
            try:
                answer = self.doors[site](request)
            except NoAnswerError:
                continue
            self.watch.see(site, request, answer)
            self.killer()
            yield site, answer


def plain_write(path, content, mode=0o644) -> None:
    """As `write_durably`, without waiting for the disk; that it is one step is tested with common/files.py."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


def mortal_write(killer: Killer):
    def write(path, content, mode=0o644) -> None:
        killer()
        plain_write(path, content, mode)
        killer()

    return write


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch):
    """One life of the coordinator, and of the sites unless their doors are given."""

    def live(hospitals: Hospitals, watch: Watch, killer: Killer, doors=None, *, resume=False, observer=lambda _: None):
        monkeypatch.setattr(server.sealed_arrays, "write_durably", mortal_write(killer))
        if doors is None:
            monkeypatch.setattr(client.sealed_file, "write_durably", mortal_write(killer))
            doors = hospitals.doors()
        transport = Mortal(doors, killer, watch)
        return run(hospitals.setup(transport, observer=observer), hospitals.folder, resume=resume)

    return live


def order_of(hospitals: Hospitals, number: int, weights: np.ndarray) -> RoundOrder:
    return RoundOrder(hospitals.plan.digest, number, weights.astype(np.float32), NOTHING)


def plain_model(hospitals: Hospitals) -> bytes:
    """The model of a plain loop in which every site is in every sum."""
    weights = np.zeros(DIMENSION)
    for number in range(1, ROUNDS + 1):
        order = order_of(hospitals, number, weights)
        weights = weights - sum(DigitTrainer(place).train(order) for place in range(SITES)) * 2.0**-16
    return weights.tobytes()


def assert_like_an_undisturbed_run(hospitals: Hospitals, watch: Watch, outcome: RunOutcome) -> None:
    assert outcome.model.weights.tobytes() == plain_model(hospitals)
    assert [summary.survivors for summary in outcome.rounds] == [SITES] * ROUNDS
    assert {hospitals.book(name).rounds_charged for name in hospitals.names} == {ROUNDS}
    watch.assert_nothing_was_said_in_two_ways()


def undisturbed(hospitals: Hospitals, life, doors=None) -> int:
    """The number of moments at which a run may be killed."""
    watch, killer = Watch(), Killer(NEVER)
    assert_like_an_undisturbed_run(hospitals, watch, life(hospitals, watch, killer, doors))
    assert watch.codes == set()
    assert len(watch.said) == 3 * SITES * ROUNDS
    return killer.count


@pytest.mark.parametrize("plan", [SLOW_ONE, TWO_SESSIONS], ids=["one session", "two sessions"])
def test_the_whole_system_killed_at_any_message_or_write_ends_alike(tmp_path, life, plan):
    moments = undisturbed(make_hospitals(tmp_path, **plan), life)
    assert moments > 100
    for moment in range(1, moments + 1):
        hospitals, watch = make_hospitals(tmp_path, **plan), Watch()
        with pytest.raises(KilledError):
            life(hospitals, watch, Killer(moment))
        outcome = life(hospitals, watch, Killer(NEVER), resume=True)
        assert_like_an_undisturbed_run(hospitals, watch, outcome)
        # What was under way when the system died may be trained once more, never charged again.
        assert sum(trainer.trained.total() for trainer in hospitals.trainers.values()) <= SITES * ROUNDS + 1


@pytest.mark.parametrize("plan", [ONE_SESSION, SLOW_TWO], ids=["one session", "two sessions"])
def test_the_coordinator_killed_at_any_message_or_write_ends_alike(tmp_path, life, plan):
    """The sites live on, with all that they have in memory."""
    whole = make_hospitals(tmp_path, **plan)
    for moment in range(1, undisturbed(whole, life, whole.doors()) + 1):
        hospitals, watch = make_hospitals(tmp_path, **plan), Watch()
        doors = hospitals.doors()
        with pytest.raises(KilledError):
            life(hospitals, watch, Killer(moment), doors)
        outcome = life(hospitals, watch, Killer(NEVER), doors, resume=True)
        assert_like_an_undisturbed_run(hospitals, watch, outcome)
        assert sum(trainer.trained.total() for trainer in hospitals.trainers.values()) == SITES * ROUNDS


def test_a_system_that_is_killed_again_and_again_ends_alike(tmp_path, life):
    hospitals, watch, lives, outcome = make_hospitals(tmp_path, **TWO_SESSIONS), Watch(), 0, None
    while outcome is None:
        lives += 1
        try:
            outcome = life(hospitals, watch, Killer(17 + 11 * lives), resume=True)
        except KilledError:
            continue
    assert lives > 3
    assert_like_an_undisturbed_run(hospitals, watch, outcome)


def reborn_door(hospitals: Hospitals, name: str, killer: Killer, monkeypatch: pytest.MonkeyPatch) -> Door:
    """A site that does not answer the message at which it is killed, and starts again from its folder."""
    node = hospitals.open(name)

    def answer(request: bytes) -> bytes:
        nonlocal node
        with monkeypatch.context() as patch:
            patch.setattr(client.sealed_file, "write_durably", mortal_write(killer))
            try:
                return node.answer(request)
            except KilledError:
                node = hospitals.open(name)
                raise NoAnswerError from None

    return answer


@SESSIONS
def test_a_site_killed_at_any_write_is_missed_at_most_until_it_is_back(tmp_path, life, monkeypatch, plan):
    monkeypatch.setattr(client.sealed_file, "write_durably", plain_write)
    moments, moment, missed = 1, 0, set()
    while moment <= moments:
        hospitals, watch, killer, models = make_hospitals(tmp_path, **plan), Watch(), Killer(moment), [np.zeros(3)]
        doors = {**hospitals.doors(), "s1": reborn_door(hospitals, "s1", killer, monkeypatch)}

        def observer(_summary, hospitals=hospitals, models=models) -> None:
            models.append(load_checkpoint(hospitals.folder, hospitals.plan.digest).model.weights)

        outcome = life(hospitals, watch, Killer(NEVER), doors, observer=observer)
        for number, summary in enumerate(outcome.rounds, 1):
            before, after = models[number - 1 : number + 1]
            there = present(grid_total(before, after), order_of(hospitals, number, before), SITES)
            assert (summary.applied, len(there), {0, 2} <= there) == (True, summary.survivors, True)
            missed |= {moment} if summary.survivors < SITES else set()
        watch.assert_nothing_was_said_in_two_ways()
        charged = {name: hospitals.book(name).rounds_charged for name in hospitals.names}
        assert (charged["s0"], charged["s2"]) == (ROUNDS, ROUNDS)
        assert len(hospitals.trainers["s1"].trained) <= charged["s1"] <= ROUNDS
        moments, moment = max(moments, killer.count), moment + 1
    # Only a kill around the charge, the answer, or the note of the answer of a round keeps a site out of a sum.
    assert len(missed) == 6 * ROUNDS
