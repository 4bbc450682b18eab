from typing import get_args

import numpy as np
import pytest

from common.errors import IntegrityError
from common.fields import CHUNK_BYTES
from common.study_messages import (
    STUDY_RULES,
    BaseChunk,
    BaseNeed,
    BaseQuery,
    CoordinatorStudyMessage,
    PlanAnswer,
    PlanOffer,
    RunNoted,
    RunOver,
    SiteStudyMessage,
)
from common.wire import KINDS, decode, encode, frame_bound

PLAN = "ab" * 32
OCTETS = np.arange(5, dtype=np.uint8)

GOOD = [
    PlanOffer(PLAN, OCTETS),
    PlanAnswer(PLAN, "n", "accepted", ()),
    PlanAnswer(PLAN, "n", "refused", ("a", "a-b")),
    BaseQuery(PLAN),
    BaseNeed(PLAN, "n", "complete", 0, 0),
    BaseNeed(PLAN, "n", "lacking", 1, 400),
    BaseChunk(PLAN, 1, 1, 1, OCTETS[:0]),
    RunOver(PLAN, "stopped"),
    RunNoted(PLAN, "n"),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: type(message).__name__)
def test_a_good_message_travels(message):
    read = decode(encode(message), type(message))
    assert encode(read) == encode(message)
    assert repr(read) == repr(message)


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (PlanOffer(PLAN, OCTETS[:0]), "`document` of a PlanOffer must be 1 to 1048576 bytes"),
        (PlanAnswer(PLAN, "n", "perhaps", ()), "`state` of a PlanAnswer must be accepted, waiting or refused"),
        (PlanAnswer(PLAN, "n", "refused", ("b", "a")), "`codes` of a PlanAnswer must be at most 64 different labels"),
        (PlanAnswer(PLAN, "n", "refused", ["a"]), "`codes` of a PlanAnswer must be at most 64 different labels"),
        (BaseQuery(PLAN[1:]), "`plan_digest` of a BaseQuery must be 64 hexadecimal digits"),
        (BaseNeed(PLAN, "n", "accepted", 0, 0), "`state` of a BaseNeed must be lacking, complete, damaged or no-room"),
        (BaseNeed(PLAN, "n", "lacking", -1, 0), "`file_number` of a BaseNeed must be a whole number from 0"),
        (BaseChunk(PLAN, 0, 1, 1, OCTETS), "`file_number` of a BaseChunk must be a whole number from 1"),
        (BaseChunk(PLAN, 1, 0, 1, OCTETS), "`chunk_number` of a BaseChunk must be a whole number from 1"),
        (
            BaseChunk(PLAN, 1, 1, 1, np.zeros(CHUNK_BYTES + 1, dtype=np.uint8)),
            "`content` of a BaseChunk must be at most 8388608 bytes",
        ),
        (RunOver(PLAN, "done"), "`outcome` of a RunOver must be finished, stopped or failed"),
        (RunNoted(PLAN, "../n"), "`site` of a RunNoted must be a site name"),
    ],
)
def test_a_broken_rule_is_named(message, rule):
    with pytest.raises(IntegrityError) as error:
        encode(message)
    assert error.value.message.startswith(rule)


def test_the_kinds_keep_their_numbers():
    # Numbers are for good: a kind that changed its number could be read as another.
    numbers = {kind.__name__: number for number, kind in KINDS.items() if kind in STUDY_RULES}
    names = ["PlanOffer", "PlanAnswer", "BaseQuery", "BaseNeed", "BaseChunk", "RunOver", "RunNoted"]
    assert numbers == {name: number for number, name in enumerate(names, start=14)}


def test_each_message_has_one_sender_and_a_site_names_itself():
    told, asked = set(get_args(SiteStudyMessage)), set(get_args(CoordinatorStudyMessage))
    assert told | asked == set(STUDY_RULES)
    assert not told & asked
    assert {kind for kind, rules in STUDY_RULES.items() if "site" in rules} == told


def test_nothing_that_a_site_says_here_has_room_for_values():
    assert not any(rule.dtype for kind in get_args(SiteStudyMessage) for rule in STUDY_RULES[kind].values())


def test_a_full_chunk_fits_its_bound():
    frame = encode(BaseChunk(PLAN, 1, 1, 1, np.zeros(CHUNK_BYTES, dtype=np.uint8)))
    assert len(frame) <= frame_bound(CHUNK_BYTES // 4) < CHUNK_BYTES + 200_000
