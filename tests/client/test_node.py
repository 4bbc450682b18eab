import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from structlog.testing import capture_logs

import client.sealed_file
from client.charges import Charges
from client.node import SiteNode
from common.errors import CloisterError, ConfigError, DataError, IntegrityError
from common.messages import Refusal, RoundOrder, RoundReply
from common.secagg.messages import MaskedOrder, RevealRequest, SurvivorSet
from common.wire import FRAME_LIMIT_BYTES, decode, encode
from tests.client.small_plan import ROUNDS, STEPS, small_plan
from tests.masked_sites import Direct, make_hospitals

PLAN = small_plan()
OTHER_PLAN = small_plan(name="other")


class CountingTrainer:
    """Gives another update each time, so that an answer made twice would show."""

    def __init__(self):
        self.orders = []

    def train(self, order):
        self.orders.append(order)
        return np.float32([len(self.orders), order.round_number])


class FixedTrainer:
    def __init__(self, result):
        self.result = result
        self.calls = 0

    def train(self, _order):
        self.calls += 1
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def order(round_number=1, *, plan=PLAN, weights=(0.5, 1.5), basis=()):
    return encode(RoundOrder(plan.digest, round_number, np.float32(weights), np.float32(basis)))


def make_node(folder, trainer, **changes):
    return SiteNode(PLAN, trainer, Charges(folder, PLAN, "north"), dimension=2, basis_dimension=3, **changes)


@pytest.fixture
def trainer():
    return CountingTrainer()


@pytest.fixture
def node(tmp_path, trainer):
    return make_node(tmp_path, trainer)


def read(answer):
    return decode(answer, RoundReply, Refusal)


def charged(folder):
    return Charges(folder, PLAN, "north", must_exist=True).rounds_charged


# --- the ordinary course ---------------------------------------------------------------------------------------------


def test_an_order_is_trained_charged_and_answered(node, trainer, tmp_path):
    reply = read(node.answer(order(2, basis=[1, 2, 3])))
    assert (reply.plan_digest, reply.round_number, reply.site) == (PLAN.digest, 2, "north")
    assert reply.update.tolist() == [1.0, 2.0]
    assert trainer.orders[0].weights.tolist() == [0.5, 1.5]
    assert trainer.orders[0].basis.tolist() == [1.0, 2.0, 3.0]
    assert charged(tmp_path) == 1
    assert node.released.messages == {"RoundReply": 1}


def test_the_charge_is_on_disk_before_training_begins(tmp_path):
    class Watching(CountingTrainer):
        def train(self, order):
            assert charged(tmp_path) == 1
            return super().train(order)

    assert isinstance(read(make_node(tmp_path, Watching()).answer(order())), RoundReply)


def test_the_same_order_gets_the_identical_bytes_also_after_a_restart(node, trainer, tmp_path):
    first = node.answer(order())
    assert node.answer(order()) == first
    assert make_node(tmp_path, trainer).answer(order()) == first
    assert len(trainer.orders) == 1
    assert charged(tmp_path) == 1


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "refusal"),
    [
        (b"", Refusal(PLAN.digest, 0, "north", "malformed")),
        (order()[:-1], Refusal(PLAN.digest, 0, "north", "malformed")),
        (encode(Refusal(PLAN.digest, 1, "north", "no-update")), Refusal(PLAN.digest, 0, "north", "malformed")),
        (order(plan=OTHER_PLAN), Refusal(OTHER_PLAN.digest, 1, "north", "other-plan")),
        (order(weights=[1]), Refusal(PLAN.digest, 1, "north", "wrong-shape")),
        (order(weights=[1, 2, 3]), Refusal(PLAN.digest, 1, "north", "wrong-shape")),
        (order(basis=[1, 2]), Refusal(PLAN.digest, 1, "north", "wrong-shape")),
        (order(ROUNDS + 1), Refusal(PLAN.digest, ROUNDS + 1, "north", "unexpected-round")),
    ],
)
def test_a_bad_order_is_refused_untrained_and_uncharged(node, trainer, tmp_path, request_bytes, refusal):
    answer = node.answer(request_bytes)
    assert answer == encode(refusal)
    assert trainer.orders == []
    assert charged(tmp_path) == 0
    assert isinstance(read(node.answer(order())), RoundReply)


def test_an_order_far_beyond_the_models_size_is_refused_unread(node):
    large = encode(RoundOrder(PLAN.digest, 1, np.zeros(50_000, np.float32), np.float32([])))
    assert len(large) < FRAME_LIMIT_BYTES
    with capture_logs() as logs:
        assert read(node.answer(large)).code == "malformed"
    assert "bytes and may have" in logs[0]["reason"]


def test_past_and_conflicting_rounds_are_refused(node, trainer):
    node.answer(order(2))
    assert read(node.answer(order(1))).code == "unexpected-round"
    assert read(node.answer(order(2, weights=[9, 9]))).code == "conflicting-order"
    assert len(trainer.orders) == 1


def test_the_reason_is_logged_at_the_site_without_content(node):
    with capture_logs() as logs:
        node.answer(order(ROUNDS + 1, weights=[123.5, 1]))
    assert logs == [
        {
            "event": "request refused", "log_level": "warning", "site": "north", "round": ROUNDS + 1,
            "code": "unexpected-round", "reason": f"round {ROUNDS + 1}: unexpected-round",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    "result",
    [
        np.float32([1, np.nan]),
        np.float32([np.inf, 1]),
        np.float32([1]),
        np.float64([1, 2]),
        None,
        DataError("the file is gone"),
        CloisterError("no"),
    ],
)
def test_training_without_a_fit_update_is_refused_once_and_stays_charged(tmp_path, result):
    failing = FixedTrainer(result)
    node = make_node(tmp_path, failing)
    refusal = node.answer(order())
    assert refusal == encode(Refusal(PLAN.digest, 1, "north", "no-update"))
    assert charged(tmp_path) == 1
    # The refusal depends on what training did, so it is this round's one answer, whatever training would do now.
    assert node.answer(order()) == refusal
    assert make_node(tmp_path, CountingTrainer()).answer(order()) == refusal
    assert failing.calls == 1
    assert charged(tmp_path) == 1


def test_an_error_that_is_not_ours_is_not_swallowed_and_answers_nothing(tmp_path):
    node = make_node(tmp_path, FixedTrainer(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        node.answer(order())
    assert charged(tmp_path) == 1
    assert node.released.messages == {}


def test_a_name_that_cannot_travel_is_refused_at_the_start(tmp_path, trainer):
    with pytest.raises(ConfigError, match=r"site name 'St\. Mary' must match"):
        SiteNode(PLAN, trainer, Charges(tmp_path, PLAN, "St. Mary"), dimension=2)


def test_a_book_of_another_plan_is_refused_at_the_start(tmp_path, trainer):
    with pytest.raises(IntegrityError, match="book of charges of another plan"):
        SiteNode(PLAN, trainer, Charges(tmp_path, OTHER_PLAN, "north"), dimension=2)


# --- masked numbers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path):
    """A node of a masked plan; the requests of a round up to its consent, and its answers so far."""
    hospitals, seen = make_hospitals(tmp_path), []
    doors = hospitals.doors()
    doors["s0"] = lambda request, first=doors["s0"]: seen.append((request, first(request))) or seen[-1][1]
    hospitals.gatherer(Direct(doors)).gather(1, np.zeros(3, np.float32), np.zeros(0, np.float32))
    return hospitals, hospitals.open("s0"), dict(zip(("invite", "roster", "order", "set", "reveal"), seen, strict=True))


@pytest.mark.parametrize("masked", [True, False])
def test_a_half_is_needed_exactly_where_the_plan_masks(tmp_path, trainer, asked, masked):
    hospitals, node, _ = asked
    plan, half = (hospitals.plan, None) if masked else (PLAN, node._half)
    with pytest.raises(ConfigError, match="needs its half of secure aggregation exactly where the plan masks"):
        SiteNode(plan, trainer, Charges(tmp_path, plan, "north"), half, dimension=2)


def test_the_same_requests_get_the_identical_bytes_after_a_restart_and_no_second_charge(asked):
    hospitals, node, requests = asked
    for request, answer in requests.values():
        assert node.answer(request) == answer
    assert (hospitals.book("s0").rounds_charged, hospitals.trainers["s0"].trained) == (1, {1: 1})


def test_another_survivor_set_is_neither_signed_nor_revealed_for(asked):
    _, node, requests = asked
    for name, kind in (("set", SurvivorSet), ("reveal", RevealRequest)):
        changed = replace(decode(requests[name][0], kind), survivors=("s0", "s1", "s2"))
        assert decode(node.answer(encode(changed)), Refusal).code == "conflicting-survivors"


def test_a_refused_survivor_set_is_not_the_rounds_one_set(asked):
    hospitals, node, requests = asked
    hospitals.book("s0").charge(2, "a" * 64, "c" * 64, hospitals.names)
    hospitals.book("s0").keep_answer(b"masked")
    node = hospitals.open("s0")
    low = replace(decode(requests["set"][0], SurvivorSet), round_number=2, survivors=("s0", "s1"))
    assert decode(node.answer(encode(low)), Refusal).code == "bad-cohort"
    assert hospitals.book("s0").survivors_fault(2, hospitals.names) is None


@pytest.mark.parametrize("name", ["order", "set", "reveal"])
def test_a_round_beyond_the_last_is_refused_and_costs_nothing(asked, name):
    hospitals, node, requests = asked
    kind = {"order": MaskedOrder, "set": SurvivorSet, "reveal": RevealRequest}[name]
    changed = encode(replace(decode(requests[name][0], kind), round_number=99))
    assert decode(node.answer(changed), Refusal).code == "unexpected-round"
    assert hospitals.book("s0").rounds_charged == 1


# --- killed at any point ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


KILL_POINTS = ["before charge", "after charge", "in training", "before answer", "after answer"]


class NodeUnderKills(RuleBasedStateMachine):
    """Orders come repeated, stale and conflicting; the process dies at named points and starts again."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.real_write = client.sealed_file.write_durably
        client.sealed_file.write_durably = self.write
        self.kill_at = None
        self.trained = 0
        self.trained_rounds = set()
        self.released = {}
        self.most_charged = 0

    def teardown(self):
        client.sealed_file.write_durably = self.real_write
        shutil.rmtree(self.folder)

    @initialize()
    def start(self):
        self.charges = Charges(self.folder, PLAN, "north", must_exist=(self.folder / "charges.book").exists())
        self.node = SiteNode(PLAN, self, self.charges, dimension=2)

    def die_at(self, point):
        if self.kill_at == point:
            self.kill_at = None
            raise Killed

    def write(self, path, content, mode):
        # Without the syncs, for speed; that the replacement is one step is tested with common/files.py.
        step = "answer" if b'"answered":true' in content else "charge"
        self.die_at(f"before {step}")
        beside = path.with_suffix(".new")
        beside.write_bytes(content)
        beside.replace(path)
        self.die_at(f"after {step}")

    def train(self, order):
        assert Charges(self.folder, PLAN, "north").last_round == order.round_number
        self.trained += 1
        self.trained_rounds.add(order.round_number)
        self.die_at("in training")
        if order.weights[0] == 2:
            raise CloisterError("nothing to give")
        return np.float32([self.trained, 0])

    @rule(point=st.sampled_from(KILL_POINTS))
    def plan_a_kill(self, point):
        self.kill_at = point

    @rule()
    def restart(self):
        self.start()

    @rule(round_number=st.integers(1, ROUNDS + 1), content=st.integers(0, 2))
    def send_order(self, round_number, content):
        self.deliver(order(round_number, weights=[content, 0]), round_number)

    @precondition(lambda self: self.released)
    @rule(data=st.data())
    def repeat_an_answered_order(self, data):
        round_number = data.draw(st.sampled_from(sorted(self.released)))
        self.deliver(self.released[round_number][0], round_number)

    def deliver(self, request, round_number):
        try:
            answer = self.node.answer(request)
        except Killed:
            self.start()
            return
        message = read(answer)
        if isinstance(message, Refusal) and message.code != "no-update":
            return
        assert message.round_number == round_number
        # One answer a round, and only to the order it was made for.
        assert self.released.setdefault(round_number, (request, answer)) == (request, answer)

    @invariant()
    def charges_cover_what_was_released_and_never_shrink(self):
        assert self.trained_rounds >= self.released.keys()
        assert self.charges.rounds_charged >= len(self.trained_rounds)
        assert self.most_charged <= self.charges.steps_charged <= PLAN.steps
        assert self.charges.steps_charged % STEPS == 0
        self.most_charged = self.charges.steps_charged


NodeUnderKills.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestNodeUnderKills = NodeUnderKills.TestCase


@pytest.mark.parametrize("point", KILL_POINTS)
def test_after_a_kill_the_same_order_is_answered_with_one_charge(tmp_path, monkeypatch, point):
    machine = {"kill": True}
    real_write = client.sealed_file.write_durably

    def die_at(here):
        if machine["kill"] and here == point:
            machine["kill"] = False
            raise Killed

    def write(path, content, mode):
        step = "answer" if b'"answered":true' in content else "charge"
        die_at(f"before {step}")
        real_write(path, content, mode)
        die_at(f"after {step}")

    class Dying(CountingTrainer):
        def train(self, order):
            die_at("in training")
            return super().train(order)

    trainer = Dying()
    node = make_node(tmp_path, trainer)
    monkeypatch.setattr(client.sealed_file, "write_durably", write)
    with pytest.raises(Killed):
        node.answer(order())
    assert charged(tmp_path) == (0 if point == "before charge" else 1)
    restarted = make_node(tmp_path, trainer)
    reply = read(restarted.answer(order()))
    assert isinstance(reply, RoundReply)
    assert charged(tmp_path) == 1
    # Only an answer that never reached the disk is made a second time.
    assert len(trainer.orders) == (2 if point == "before answer" else 1)


def test_after_a_kill_another_order_for_the_round_is_refused_for_good(tmp_path):
    with pytest.raises(Killed):
        make_node(tmp_path, FixedTrainer(Killed())).answer(order())
    node = make_node(tmp_path, CountingTrainer())
    assert read(node.answer(order(weights=[9, 9]))).code == "conflicting-order"
    assert read(node.answer(order())).update.tolist() == [1.0, 1.0]


def test_a_digest_of_the_bytes_names_an_order(tmp_path, node):
    node.answer(order())
    digest = hashlib.sha256(order()).hexdigest()
    assert Charges(tmp_path, PLAN, "north").kept_answer(digest) is not None
