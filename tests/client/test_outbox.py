from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
import pytest

import client.outbox
from client.outbox import RELEASE_CLASSES, Outbox, ReleaseClass, Released
from common.errors import IntegrityError
from common.messages import FIELD_RULES, Refusal, RoundOrder, RoundReply
from common.wire import encode

PLAN = "ab" * 32
UPDATE = np.float32([1.0, -2.0, 3.0])
REPLY = RoundReply(PLAN, 1, "north", UPDATE)
REFUSAL = Refusal(PLAN, 1, "north", "no-update")


@pytest.fixture
def outbox():
    return Outbox("north", 3)


def test_the_list_names_every_field_of_what_may_leave_and_no_order():
    assert set(RELEASE_CLASSES) == {RoundReply, Refusal}
    for kind, classes in RELEASE_CLASSES.items():
        assert set(classes) == {field.name for field in fields(kind)}


def test_no_class_stands_for_raw_values_and_every_vector_is_noised():
    assert set(get_args(ReleaseClass)) == {"noised and charged", "public"}
    for kind, classes in RELEASE_CLASSES.items():
        assert set(classes.values()) <= set(get_args(ReleaseClass))
        for name, rule in FIELD_RULES[kind].items():
            assert (classes[name] == "noised and charged") == bool(rule.dtype)


def test_what_leaves_is_the_encoded_message_counted_by_class(outbox):
    assert outbox.released == Released({}, {})
    assert outbox.release(REPLY) == encode(REPLY)
    assert outbox.release(REFUSAL) == encode(REFUSAL)
    public = len(encode(REPLY)) - 12 + len(encode(REFUSAL))
    assert outbox.released == Released({"RoundReply": 1, "Refusal": 1}, {"noised and charged": 12, "public": public})


def test_a_kept_answer_leaves_again_unchanged_and_is_counted_again(outbox):
    kept = outbox.release(REPLY)
    assert outbox.release_again(kept) == kept
    assert outbox.released.messages == {"RoundReply": 2}
    assert outbox.released.bytes_by_class["noised and charged"] == 24


@dataclass(frozen=True, eq=False)
class ReplyWithLoss(RoundReply):
    loss: float = 0.25


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (RoundOrder(PLAN, 1, UPDATE, UPDATE), "a RoundOrder is not on the list"),
        (ReplyWithLoss(PLAN, 1, "north", UPDATE), "a ReplyWithLoss is not on the list"),
        (b"raw bytes", "a bytes is not on the list"),
        (UPDATE, "a ndarray is not on the list"),
        (RoundReply(PLAN, 1, "south", UPDATE), "only messages of site north may leave it"),
        (Refusal(PLAN, 1, "south", "no-update"), "only messages of site north may leave it"),
        (RoundReply(PLAN, 1, "north", UPDATE[:2]), r"an update must have 3 values, not shape \(2,\)"),
        (RoundReply(PLAN, 1, "north", np.append(UPDATE, UPDATE)), r"an update must have 3 values, not shape \(6,\)"),
        (RoundReply(PLAN, 1, "north", np.float32([1, np.nan, 0])), "must be a finite float32 vector"),
        (RoundReply(PLAN, 1, "north", np.float32([1, np.inf, 0])), "must be a finite float32 vector"),
        (RoundReply(PLAN, 1, "north", UPDATE.astype(np.float64)), "must be a finite float32 vector"),
        (RoundReply(PLAN, 1, "north", None), "must be a finite float32 vector"),
        (Refusal(PLAN, 1, "north", "the patient in row 3"), "must be a known refusal code"),
    ],
)
def test_nothing_else_leaves_or_is_counted(outbox, message, rule):
    with pytest.raises(IntegrityError, match=rule):
        outbox.release(message)
    assert outbox.released == Released({}, {})


def test_a_field_that_nobody_listed_does_not_leave(outbox, monkeypatch):
    shorter = {name: kind for name, kind in RELEASE_CLASSES[RoundReply].items() if name != "update"}
    monkeypatch.setattr(client.outbox, "RELEASE_CLASSES", {RoundReply: shorter})
    with pytest.raises(IntegrityError, match="a RoundReply has fields that are not on the list"):
        outbox.release(REPLY)


@pytest.mark.parametrize("frame", [b"anything", encode(RoundOrder(PLAN, 1, UPDATE, UPDATE)), encode(REPLY)[:-1]])
def test_bytes_that_are_no_answer_do_not_leave_again(outbox, frame):
    with pytest.raises(IntegrityError, match="the frame"):
        outbox.release_again(frame)
