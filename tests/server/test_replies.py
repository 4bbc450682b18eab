from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages import Refusal
from common.secagg.messages import MaskedReply, SurvivorSet
from common.wire import encode, frame_bound
from server.replies import Exchanges

PLAN, SESSION = "ab" * 32, "5e" * 32
REQUESTS = {"a": b"123", "b": b"45", "c": b"6"}


@dataclass
class Replay:
    """A transport that brings what it is given."""

    answers: list[tuple[str, bytes]]
    asked: dict[str, bytes] = field(default_factory=dict)
    finished: bool = False

    def exchange(self, orders):
        self.asked = dict(orders)
        yield from self.answers
        self.finished = True


SIGNATURE = np.zeros(64, np.uint8)


def reply(site: str, *values: int, plan: str = PLAN, number: int = 2) -> bytes:
    return encode(MaskedReply(plan, SESSION, number, site, np.array(values, np.uint32), SIGNATURE))


def refusal(site: str, code="no-update", plan: str = PLAN, number: int = 2) -> bytes:
    return encode(Refusal(plan, number, site, code))


def fault_of(answer: MaskedReply):
    if answer.round_number != 2:
        return "other-round"
    return None if len(answer.masked) == 2 else "wrong-shape"


def asked(answers: list[tuple[str, bytes]]) -> tuple[Exchanges, list[tuple[str, list[int]]], Replay]:
    transport = Replay(answers)
    exchanges = Exchanges(transport, PLAN, 2)
    found = exchanges.ask(REQUESTS, MaskedReply, fault_of, limit_bytes=frame_bound(2))
    return exchanges, [(answer.site, answer.masked.tolist()) for answer in found], transport


def test_good_answers_come_as_they_arrive():
    exchanges, found, transport = asked([("b", reply("b", 1, 2)), ("a", reply("a", 3, 4))])
    assert found == [("b", [1, 2]), ("a", [3, 4])]
    assert transport.asked == REQUESTS
    assert transport.finished
    assert (exchanges.refusals, exchanges.faults) == ({}, {})
    assert exchanges.bytes_out == 6
    assert exchanges.bytes_in == len(reply("b", 1, 2)) + len(reply("a", 3, 4))


FAULTY = {
    "unreadable": [("a", b"noise")],
    "unknown-site": [("z", reply("z", 1, 2))],
    "wrong-site": [("a", reply("b", 1, 2))],
    "other-plan": [("a", reply("a", 1, 2, plan="cd" * 32))],
    "other-round": [("a", reply("a", 1, 2, number=1))],
    "wrong-shape": [("a", reply("a", 1))],
}


@pytest.mark.parametrize("kind", FAULTY)
def test_an_answer_with_a_fault_is_ignored_and_counted(kind):
    exchanges, found, _ = asked([*FAULTY[kind], ("a", reply("a", 7, 7))])
    assert found == [("a", [7, 7])]
    assert exchanges.faults == {kind: 1}


def test_an_answer_that_is_too_long_or_of_another_kind_is_unreadable():
    survivors = encode(SurvivorSet(PLAN, SESSION, 2, ("a", "b", "c"), np.zeros(3 * 64, np.uint8)))
    exchanges, found, _ = asked([("a", reply("a", *range(100_000))), ("b", survivors)])
    assert found == []
    assert exchanges.faults == {"unreadable": 2}


def test_the_same_bytes_again_are_no_fault_and_count_once():
    exchanges, found, _ = asked([("a", reply("a", 1, 2))] * 3)
    assert found == [("a", [1, 2])]
    assert exchanges.faults == {}


@pytest.mark.parametrize("second", [reply("a", 1, 3), refusal("a")])
def test_other_bytes_from_a_site_that_was_counted_are_a_conflict(second):
    exchanges, found, _ = asked([("a", reply("a", 1, 2)), ("a", second)])
    assert found == [("a", [1, 2])]
    assert exchanges.faults == {"conflicting-reply": 1}
    assert exchanges.refusals == {}


def test_refusals_are_counted_by_their_first_code():
    answers = [refusal("a"), refusal("a", "malformed"), refusal("b"), refusal("c", "malformed")]
    exchanges, found, _ = asked(list(zip("aabc", answers, strict=True)))
    assert found == []
    assert exchanges.refusals == {"malformed": 1, "no-update": 2}
    assert exchanges.faults == {}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (refusal("a", number=0), None),
        (refusal("a", number=1), "other-round"),
        (refusal("b"), "wrong-site"),
        (refusal("a", plan="cd" * 32), "other-plan"),
    ],
)
def test_a_refusal_belongs_to_site_plan_and_round(data, fault):
    exchanges, _, _ = asked([("a", data)])
    assert exchanges.faults == ({} if fault is None else {fault: 1})
    assert exchanges.refusals == ({"no-update": 1} if fault is None else {})


def test_a_refusal_may_be_followed_by_an_answer():
    exchanges, found, _ = asked([("a", refusal("a")), ("a", reply("a", 1, 2))])
    assert found == [("a", [1, 2])]
    assert exchanges.refusals == {}


def test_one_round_may_have_several_exchanges():
    transport = Replay([("a", reply("a", 1, 2))])
    exchanges = Exchanges(transport, PLAN, 2)
    for _ in range(2):
        assert len(list(exchanges.ask(REQUESTS, MaskedReply, fault_of, limit_bytes=frame_bound(2)))) == 1
    assert exchanges.bytes_out == 12


@settings(max_examples=50)
@given(noise=st.lists(st.tuples(st.sampled_from(["a", "b", "z", ""]), st.binary(max_size=60)), max_size=8))
def test_no_bytes_raise(noise):
    exchanges, found, _ = asked(noise)
    assert found == []
    assert sum(exchanges.faults.values()) == len(noise)
