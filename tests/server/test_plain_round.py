import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages import Refusal, RoundOrder, RoundReply
from common.wire import encode
from server.plain_round import Intake

SITES = ("a", "b", "c")
PLAN = "ab" * 32
ORDER = RoundOrder(PLAN, 2, np.zeros(3, dtype=np.float32), np.zeros(0, dtype=np.float32))


def reply(site, *values, plan=PLAN, number=2):
    return encode(RoundReply(plan, number, site, np.array(values, dtype=np.float32)))


def refusal(site, code="no-update", plan=PLAN, number=2):
    return encode(Refusal(plan, number, site, code))


GOOD = [("a", reply("a", 1, 2, 3)), ("b", reply("b", 1, 0, -1)), ("c", reply("c", 0.5, 0.5, 0.5))]


def taken(answers):
    intake = Intake(ORDER, SITES)
    for site, answer in answers:
        intake.take(site, answer)
    return intake


def test_good_answers_are_added_up():
    intake = taken(GOOD)
    assert (intake.survivors, intake.total.tolist()) == (3, [2.5, 2.5, 2.5])
    assert (intake.refusals, intake.faults) == ({}, {})
    assert intake.bytes_in == sum(len(answer) for _, answer in GOOD)


FAULTY = {
    "unreadable": [
        ("a", b""),
        ("a", b"\x00" * 100),
        ("a", GOOD[0][1][:-1]),
        ("a", GOOD[0][1] + b"\x00"),
        ("a", encode(ORDER)),
        ("a", reply("a", *range(100_000))),
    ],
    "unknown-site": [("d", reply("d", 1, 2, 3)), ("", GOOD[0][1])],
    "wrong-site": [("a", reply("b", 1, 2, 3)), ("a", refusal("b"))],
    "other-plan": [("a", reply("a", 1, 2, 3, plan="cd" * 32)), ("a", refusal("a", plan="cd" * 32))],
    "other-round": [
        ("a", reply("a", 1, 2, 3, number=1)),
        ("a", reply("a", 1, 2, 3, number=3)),
        ("a", refusal("a", number=1)),
    ],
    "wrong-shape": [("a", reply("a", 1, 2)), ("a", reply("a", 1, 2, 3, 4)), ("a", reply("a"))],
    "out-of-range": [("a", reply("a", 1, 8192, 3)), ("a", reply("a", 1, -3e38, 3))],
    "conflicting-reply": [("a", reply("a", 9, 9, 9))],
}


@pytest.mark.parametrize(
    ("kind", "site", "answer"), [(kind, *case) for kind, cases in FAULTY.items() for case in cases]
)
def test_a_faulty_answer_is_counted_by_kind_and_changes_nothing_else(kind, site, answer):
    intake = taken([*GOOD, (site, answer)])
    assert intake.faults == {kind: 1}
    assert (intake.survivors, intake.total.tolist(), intake.refusals) == (3, [2.5, 2.5, 2.5], {})


@pytest.mark.parametrize("answers", [cases for kind, cases in FAULTY.items() if kind != "conflicting-reply"])
def test_a_faulty_answer_does_not_stand_in_the_way_of_a_good_one(answers):
    intake = taken([*answers, *GOOD])
    assert (intake.survivors, intake.total.tolist()) == (3, [2.5, 2.5, 2.5])


def test_an_update_with_nan_is_not_added():
    # `encode` and `decode` refuse such a frame; the sum does not rely on it.
    intake = Intake(ORDER, SITES)
    update = np.array([np.nan, 0, 0], dtype=np.float32)
    assert intake._take_reply(RoundReply(PLAN, 2, "a", update), b"") == "out-of-range"
    assert intake.survivors == 0


def test_an_identical_repeat_counts_once_and_is_no_fault():
    intake = taken([*GOOD, GOOD[0], GOOD[0], GOOD[2]])
    assert (intake.survivors, intake.total.tolist(), intake.faults) == (3, [2.5, 2.5, 2.5], {})


def test_refusals_are_counted_by_code_once_a_site():
    intake = taken([("a", refusal("a")), ("a", refusal("a", "malformed")), ("b", refusal("b")), GOOD[2]])
    assert (intake.survivors, intake.refusals, intake.faults) == (1, {"no-update": 2}, {})


def test_a_refusal_of_an_order_that_could_not_be_read_has_round_0():
    assert taken([("a", refusal("a", "malformed", number=0))]).refusals == {"malformed": 1}


def test_a_site_that_replied_is_no_refusal_whichever_came_first():
    refused = ("a", refusal("a", "malformed", number=0))
    for answers in ([GOOD[0], refused], [refused, GOOD[0]]):
        intake = taken(answers)
        assert (intake.survivors, intake.refusals, intake.faults) == (1, {}, {})


@given(order=st.permutations([*GOOD, *FAULTY["unreadable"][:3], *FAULTY["other-round"], GOOD[1], ("b", refusal("b"))]))
def test_the_result_does_not_depend_on_the_order_of_arrival(order):
    intake = taken(order)
    assert intake.total.tobytes() == np.array([2.5, 2.5, 2.5]).tobytes()
    assert (intake.survivors, intake.refusals, intake.faults) == (3, {}, {"unreadable": 3, "other-round": 3})


@settings(max_examples=200)
@given(data=st.data())
def test_no_bytes_of_any_kind_raise_or_count(data):
    original = GOOD[0][1]
    cut = data.draw(st.integers(0, len(original)))
    junk = original[:cut] + data.draw(st.binary(max_size=64)) + original[cut + data.draw(st.integers(0, 8)) :]
    intake = taken([("a", junk)])
    assert intake.survivors == int(junk == original)
