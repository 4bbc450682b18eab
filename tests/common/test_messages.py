from dataclasses import fields
from typing import get_args

import numpy as np
import pytest

from common.errors import IntegrityError
from common.messages import FIELD_RULES, CoordinatorMessage, Refusal, RoundOrder, RoundReply, SiteMessage, check_message
from common.secagg.messages import (
    Consent,
    MaskedOrder,
    MaskedReply,
    RevealRequest,
    SessionInvite,
    SessionRoster,
    SessionShares,
    SurvivorSet,
)
from common.study_messages import CoordinatorStudyMessage, SiteStudyMessage

PLAN = "ab" * 32
VALUES = np.array([1.0, -2.0], dtype=np.float32)
EMPTY = np.zeros(0, dtype=np.float32)
SESSION = "cd" * 32
PAIR = ("a", "b")
OCTETS = np.arange(64, dtype=np.uint8)
MASKED = np.array([7, 2**32 - 1], dtype=np.uint32)
IN_ORDER = "1 to 512 different site names in order"


@pytest.mark.parametrize("kind", FIELD_RULES)
def test_every_field_of_every_message_has_a_rule(kind):
    assert [field.name for field in fields(kind)] == list(FIELD_RULES[kind])


@pytest.mark.parametrize(
    "message",
    [
        RoundOrder(PLAN, 1, VALUES, EMPTY),
        RoundReply(PLAN, 2**31 - 1, "North_1.a-b", VALUES),
        Refusal(PLAN, 0, "n", "malformed"),
        SessionInvite(PLAN, SESSION, 1, 256),
        MaskedOrder(PLAN, SESSION, 1, PAIR, VALUES, EMPTY),
        MaskedReply(PLAN, SESSION, 1, "n", MASKED, OCTETS),
        SurvivorSet(PLAN, SESSION, 1, ("n",), OCTETS),
        Consent(PLAN, SESSION, 1, "n", OCTETS),
    ],
)
def test_a_good_message_passes(message):
    check_message(message)


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (RoundOrder(PLAN[:-1], 1, VALUES, EMPTY), "`plan_digest` of a RoundOrder must be 64 hexadecimal digits"),
        (RoundOrder(PLAN.upper(), 1, VALUES, EMPTY), "`plan_digest` of a RoundOrder must be 64 hexadecimal digits"),
        (RoundOrder(PLAN + "\n", 1, VALUES, EMPTY), "`plan_digest` of a RoundOrder must be 64 hexadecimal digits"),
        (RoundOrder(PLAN, 0, VALUES, EMPTY), "`round_number` of a RoundOrder must be a whole number from 1"),
        (RoundOrder(PLAN, True, VALUES, EMPTY), "`round_number` of a RoundOrder must be a whole number from 1"),
        (RoundOrder(PLAN, 2**31, VALUES, EMPTY), "`round_number` of a RoundOrder must be a whole number from 1"),
        (Refusal(PLAN, -1, "n", "malformed"), "`round_number` of a Refusal must be a whole number from 0"),
        (RoundReply(PLAN, 1, "", VALUES), "`site` of a RoundReply must be a site name"),
        (RoundReply(PLAN, 1, ".hidden", VALUES), "`site` of a RoundReply must be a site name"),
        (RoundReply(PLAN, 1, "n" * 65, VALUES), "`site` of a RoundReply must be a site name"),
        (Refusal(PLAN, 1, "n", "because"), "`code` of a Refusal must be a known refusal code"),
        (Refusal(PLAN, 1, "n", 3), "`code` of a Refusal must be a known refusal code"),
        (RoundReply(PLAN, 1, "n", [1.0]), "`update` of a RoundReply must be a finite float32 vector"),
        (
            RoundReply(PLAN, 1, "n", VALUES.astype(np.float64)),
            "`update` of a RoundReply must be a finite float32 vector",
        ),
        (RoundReply(PLAN, 1, "n", VALUES[None]), "`update` of a RoundReply must be a finite float32 vector"),
        (RoundReply(PLAN, 1, "n", VALUES * np.nan), "`update` of a RoundReply must be a finite float32 vector"),
        (RoundReply(PLAN, 1, "n", VALUES * np.inf), "`update` of a RoundReply must be a finite float32 vector"),
        (SessionInvite(PLAN, SESSION[1:], 1, 1), "`session` of a SessionInvite must be 64 hexadecimal digits"),
        (SessionInvite(PLAN, SESSION, 0, 1), "`first_round` of a SessionInvite must be a whole number from 1"),
        (SessionInvite(PLAN, SESSION, 1, 0), "`rounds` of a SessionInvite must be a whole number from 1"),
        (SessionRoster(PLAN, SESSION, 1, 1, (), OCTETS, OCTETS), f"`sites` of a SessionRoster must be {IN_ORDER}"),
        (SessionShares(PLAN, SESSION, "n", PAIR[::-1], OCTETS), f"`recipients` of a SessionShares must be {IN_ORDER}"),
        (SurvivorSet(PLAN, SESSION, 1, ["a", "b"], OCTETS), f"`survivors` of a SurvivorSet must be {IN_ORDER}"),
        (SurvivorSet(PLAN, SESSION, 1, ("a", "a"), OCTETS), f"`survivors` of a SurvivorSet must be {IN_ORDER}"),
        (
            SurvivorSet(PLAN, SESSION, 1, PAIR, OCTETS.tobytes()),
            "`signatures` of a SurvivorSet must be a vector of bytes",
        ),
        (
            MaskedReply(PLAN, SESSION, 1, "n", MASKED.astype(np.int64), OCTETS),
            "`masked` of a MaskedReply must be a uint32 vector",
        ),
        (MaskedReply(PLAN, SESSION, 1, "n", MASKED, OCTETS[1:]), "`signature` of a MaskedReply must be 64 bytes"),
        (
            MaskedOrder(PLAN, SESSION, 1, PAIR, VALUES * np.nan, EMPTY),
            "`weights` of a MaskedOrder must be a finite float32 vector",
        ),
        (Consent(PLAN, SESSION, 1, "n", OCTETS[1:]), "`signature` of a Consent must be 64 bytes"),
        (
            RevealRequest(PLAN, SESSION, 1, PAIR, PAIR, OCTETS.tobytes(), PAIR, OCTETS),
            "`signatures` of a RevealRequest must be a vector of bytes",
        ),
        ("a string", "str is not a kind of message"),
    ],
)
def test_a_broken_rule_is_named(message, rule):
    with pytest.raises(IntegrityError) as error:
        check_message(message)
    assert error.value.message.startswith(rule)


@pytest.mark.parametrize("kind", FIELD_RULES)
def test_no_kind_shows_its_vectors_and_all_are_frozen(kind):
    assert kind.__dataclass_params__.frozen
    assert [field.name for field in fields(kind) if not field.repr] == [
        name for name, rule in FIELD_RULES[kind].items() if rule.dtype
    ]


def test_every_kind_has_one_sender():
    told = {*get_args(SiteMessage), *get_args(SiteStudyMessage)}
    asked = {*get_args(CoordinatorMessage), *get_args(CoordinatorStudyMessage)}
    assert told.isdisjoint(asked)
    assert told | asked | {RoundOrder, RoundReply, Refusal} == set(FIELD_RULES)
    # A site's message carries its name, and no message of the coordinator looks as if it came from one.
    assert {kind for kind, rules in FIELD_RULES.items() if "site" in rules} == told | {RoundReply, Refusal}


def test_no_message_shows_its_values():
    shown = repr(RoundOrder(PLAN, 1, VALUES, VALUES)) + repr(RoundReply(PLAN, 1, "n", VALUES))
    assert "-2" not in shown
    assert "weights" not in shown
    assert "update" not in shown
