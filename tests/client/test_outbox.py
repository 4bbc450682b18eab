import hashlib
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
import pytest

import client.outbox
from client.outbox import RELEASE_CLASSES, Outbox, ReleaseClass, Released
from common.audit import AuditLog, verify_audit
from common.errors import IntegrityError
from common.identity import new_identity, public_name
from common.messages import FIELD_RULES, Refusal, RoundOrder, RoundReply
from common.secagg.messages import (
    Consent,
    CoordinatorMessage,
    MaskedOrder,
    MaskedReply,
    Reveal,
    SessionInvite,
    SessionKeys,
    SessionShares,
    SiteMessage,
    SurvivorSet,
)
from common.study_messages import BaseNeed, BaseQuery, CoordinatorStudyMessage, PlanAnswer, RunNoted, SiteStudyMessage
from common.wire import encode

PLAN = "ab" * 32
SESSION = "5e" * 32
UPDATE = np.float32([1.0, -2.0, 3.0])
MASKED = np.uint32([1, 2, 2**32 - 1])
REPLY = RoundReply(PLAN, 1, "north", UPDATE)
REFUSAL = Refusal(PLAN, 1, "north", "no-update")
SIGNATURE = np.zeros(64, np.uint8)
MASKED_REPLY = MaskedReply(PLAN, SESSION, 1, "north", MASKED, SIGNATURE)


def some_bytes(count):
    return np.arange(count, dtype=np.uint8)


KEY_MATERIAL = {
    SessionKeys(PLAN, SESSION, 1, 1, "north", some_bytes(96), some_bytes(64)): 96 + 64,
    SessionShares(PLAN, SESSION, "north", ("east", "west"), some_bytes(164)): 164,
    Consent(PLAN, SESSION, 1, "north", some_bytes(64)): 64,
    Reveal(PLAN, SESSION, 1, "north", ("east", "west"), some_bytes(66)): 66,
}


@pytest.fixture
def outbox():
    return Outbox("north", 3)


def test_the_list_names_every_field_of_what_may_leave_and_no_order():
    assert set(RELEASE_CLASSES) == {RoundReply, Refusal, *get_args(SiteMessage), *get_args(SiteStudyMessage)}
    orders = {RoundOrder, *get_args(CoordinatorMessage), *get_args(CoordinatorStudyMessage)}
    assert not set(RELEASE_CLASSES) & orders
    for kind, classes in RELEASE_CLASSES.items():
        assert set(classes) == {field.name for field in fields(kind)}


def test_no_class_stands_for_raw_values_and_no_vector_is_public():
    # What a vector may be follows from its form: real values are noised, whole numbers masked, bytes keys and shares.
    forms = {"<f4": "noised and charged", "<u4": "masked", "|u1": "key material", "": "public"}
    assert set(get_args(ReleaseClass)) == set(forms.values())
    for kind, classes in RELEASE_CLASSES.items():
        assert {name: forms[rule.dtype] for name, rule in FIELD_RULES[kind].items()} == classes


def test_what_leaves_is_the_encoded_message_counted_by_class(outbox):
    assert outbox.released == Released({}, {})
    assert outbox.release(REPLY) == encode(REPLY)
    assert outbox.release(REFUSAL) == encode(REFUSAL)
    public = len(encode(REPLY)) - 12 + len(encode(REFUSAL))
    assert outbox.released == Released({"RoundReply": 1, "Refusal": 1}, {"noised and charged": 12, "public": public})


@pytest.mark.parametrize(("message", "size"), KEY_MATERIAL.items(), ids=lambda value: type(value).__name__)
def test_keys_and_shares_leave_as_key_material(outbox, message, size):
    frame = outbox.release(message)
    assert frame == encode(message)
    assert outbox.released == Released({type(message).__name__: 1}, {"key material": size, "public": len(frame) - size})


@pytest.mark.parametrize(
    "message",
    [
        PlanAnswer(PLAN, "north", "refused", ("noise-too-low", "unit")),
        BaseNeed(PLAN, "north", "lacking", 2, 7),
        RunNoted(PLAN, "north"),
    ],
)
def test_what_is_said_around_the_rounds_is_public(outbox, message):
    frame = outbox.release(message)
    assert frame == encode(message)
    assert outbox.released == Released({type(message).__name__: 1}, {"public": len(frame)})


def test_masked_numbers_leave_as_masked_and_again(outbox):
    frame = outbox.release(MASKED_REPLY)
    assert frame == encode(MASKED_REPLY) == outbox.release_again(frame)
    assert outbox.released == Released(
        {"MaskedReply": 2}, {"masked": 24, "key material": 128, "public": 2 * (len(frame) - 12 - 64)}
    )


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
        (MaskedOrder(PLAN, SESSION, 1, ("north",), UPDATE, UPDATE), "a MaskedOrder is not on the list"),
        (SessionInvite(PLAN, SESSION, 1, 1), "a SessionInvite is not on the list"),
        (SurvivorSet(PLAN, SESSION, 1, ("north",), SIGNATURE), "a SurvivorSet is not on the list"),
        (MaskedReply(PLAN, SESSION, 1, "south", MASKED, SIGNATURE), "only messages of site north may leave it"),
        (
            MaskedReply(PLAN, SESSION, 1, "north", MASKED[:2], SIGNATURE),
            r"an update must have 3 values, not shape \(2,\)",
        ),
        (MaskedReply(PLAN, SESSION, 1, "north", MASKED.reshape(3, 1), SIGNATURE), "must be a uint32 vector"),
        (MaskedReply(PLAN, SESSION, 1, "north", MASKED.astype(np.int64), SIGNATURE), "must be a uint32 vector"),
        (MaskedReply(PLAN, SESSION, 1, "north", UPDATE, SIGNATURE), "must be a uint32 vector"),
        (Refusal(PLAN, 1, "north", "the patient in row 3"), "must be a known refusal code"),
        (BaseQuery(PLAN), "a BaseQuery is not on the list"),
        (RunNoted(PLAN, "south"), "only messages of site north may leave it"),
        (PlanAnswer(PLAN, "north", "refused", ("patient in row 3",)), "must be at most 64 different labels"),
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


NO_ANSWERS = [b"anything", encode(RoundOrder(PLAN, 1, UPDATE, UPDATE)), encode(REPLY)[:-1], *map(encode, KEY_MATERIAL)]


@pytest.mark.parametrize("frame", NO_ANSWERS)
def test_bytes_that_are_no_answer_do_not_leave_again(outbox, frame):
    with pytest.raises(IntegrityError, match="the frame"):
        outbox.release_again(frame)


# --- the record ---

MOST_REVEALING = {RoundReply: "noised and charged", Refusal: "public", MaskedReply: "masked", PlanAnswer: "public"}


@pytest.mark.parametrize(
    "message",
    [REPLY, REFUSAL, MASKED_REPLY, PlanAnswer(PLAN, "north", "refused", ("a", "b")), *KEY_MATERIAL],
    ids=lambda value: type(value).__name__,
)
def test_each_message_is_recorded_with_what_it_is_and_its_digest(message):
    recorded = []
    outbox = Outbox("north", 3, recorded.append)
    frame = outbox.release(message)
    (event,) = recorded
    assert (event.message, event.plan, event.recipient) == (type(message).__name__, PLAN, "coordinator")
    assert event.round_number == getattr(message, "round_number", 0)
    assert (event.size_bytes, event.digest) == (len(frame), hashlib.sha256(frame).hexdigest())
    assert event.release_class == MOST_REVEALING.get(type(message), "key material")
    assert outbox.released.bytes_by_class == event.bytes_by_class


def test_a_kept_answer_that_leaves_again_is_recorded_again():
    recorded = []
    outbox = Outbox("north", 3, recorded.append, recipient="relay")
    outbox.release_again(outbox.release(REPLY))
    assert [event.digest for event in recorded] == [hashlib.sha256(encode(REPLY)).hexdigest()] * 2
    assert {event.recipient for event in recorded} == {"relay"}


def test_what_cannot_be_recorded_does_not_leave_and_what_may_not_leave_is_not_recorded():
    def full(event):
        raise OSError("disk full")

    outbox = Outbox("north", 3, full)
    with pytest.raises(OSError, match="disk full"):
        outbox.release(REPLY)
    with pytest.raises(IntegrityError, match="only messages of site north"):
        outbox.release(RoundReply(PLAN, 1, "south", UPDATE))
    assert outbox.released == Released({}, {})


def test_the_record_is_on_disk_before_the_bytes_are_handed_out(tmp_path):
    (tmp_path / "keys").mkdir()
    identity = new_identity()
    path, anchor = tmp_path / "audit.jsonl", tmp_path / "keys" / "audit.anchor"
    outbox = Outbox("north", 3, AuditLog(path, anchor, identity).record)
    frames = [outbox.release(REPLY), outbox.release(REFUSAL)]
    events = [entry.event for entry in verify_audit(path, anchor, public_name(identity)).entries]
    assert [event.digest for event in events] == [hashlib.sha256(frame).hexdigest() for frame in frames]
