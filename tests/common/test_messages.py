from dataclasses import fields

import numpy as np
import pytest

from common.errors import IntegrityError
from common.messages import FIELD_RULES, Refusal, RoundOrder, RoundReply, check_message

PLAN = "ab" * 32
VALUES = np.array([1.0, -2.0], dtype=np.float32)
EMPTY = np.zeros(0, dtype=np.float32)


@pytest.mark.parametrize("kind", FIELD_RULES)
def test_every_field_of_every_message_has_a_rule(kind):
    assert [field.name for field in fields(kind)] == list(FIELD_RULES[kind])


@pytest.mark.parametrize(
    "message",
    [
        RoundOrder(PLAN, 1, VALUES, EMPTY),
        RoundReply(PLAN, 2**31 - 1, "North_1.a-b", VALUES),
        Refusal(PLAN, 0, "n", "malformed"),
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
        ("a string", "str is not a kind of message"),
    ],
)
def test_a_broken_rule_is_named(message, rule):
    with pytest.raises(IntegrityError) as error:
        check_message(message)
    assert error.value.message.startswith(rule)


def test_no_message_shows_its_values():
    shown = repr(RoundOrder(PLAN, 1, VALUES, VALUES)) + repr(RoundReply(PLAN, 1, "n", VALUES))
    assert "-2" not in shown
    assert "weights" not in shown
    assert "update" not in shown
