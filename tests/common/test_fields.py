import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from common import fields
from common.fields import (
    CHUNK_BYTES,
    DOCUMENT_BYTES,
    MOST_LABELS,
    MOST_NAMES,
    BaseState,
    FieldRule,
    Outcome,
    PlanState,
    RefusalCode,
)

RULES = {name: value for name, value in vars(fields).items() if isinstance(value, FieldRule)}
FLOATS = np.array([1.0, -0.0], dtype=np.float32)
OCTETS = np.zeros(64, dtype=np.uint8)
RING = np.array([0, 2**32 - 1], dtype=np.uint32)

GOOD = {
    "PLAN": ["0123456789abcdef" * 4],
    "SESSION": ["0" * 64],
    "ROUND": [1, 2**31 - 1],
    "ROUND_OR_NONE": [0, 1, 2**31 - 1],
    "SITE": ["n", "9", "North_1.a-b", "n" * 64],
    "NAMES": [("n",), ("B", "a"), ("a", "a.b", "b"), ("site-10", "site-9"), tuple(f"{n:03}" for n in range(512))],
    "CODE": list(get_args(RefusalCode)),
    "VECTOR": [FLOATS, FLOATS[:0], FLOATS[::2]],
    "RING": [RING, RING[:0]],
    "BYTES": [OCTETS, OCTETS[:0], OCTETS[::2]],
    "SIGNATURE": [OCTETS, np.full(64, 255, dtype=np.uint8)],
    "PLACE": [1, 2**31 - 1],
    "PLACE_OR_NONE": [0, 1, 2**31 - 1],
    "PLAN_STATE": list(get_args(PlanState)),
    "BASE_STATE": list(get_args(BaseState)),
    "OUTCOME": list(get_args(Outcome)),
    "LABELS": [(), ("a",), ("a", "a-b", "b9"), ("x" * 40,), tuple(f"{n:02}" for n in range(MOST_LABELS))],
    "DOCUMENT": [OCTETS[:1], np.zeros(DOCUMENT_BYTES, dtype=np.uint8)],
    "CHUNK": [OCTETS[:0], OCTETS, np.zeros(CHUNK_BYTES, dtype=np.uint8)],
}

NO_DIGEST = ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "٣" * 64, b"a" * 64, 0, None, ["a" * 64]]
NO_NUMBER = [-1, 2**31, True, False, 1.0, "1", None, [1], np.int64(1)]
NO_WORD = ["", "because", "accepted ", "Accepted", "lacking\n", b"finished", 1, None, ["accepted"], OCTETS]
NO_ARRAY = [None, 1, "n", [1], (1,), b"\0" * 64, bytearray(64), memoryview(b"\0" * 64)]
BAD = {
    "PLAN": NO_DIGEST,
    "SESSION": NO_DIGEST,
    "ROUND": [0, *NO_NUMBER],
    "ROUND_OR_NONE": NO_NUMBER,
    "SITE": ["", ".n", "-n", "_n", "n" * 65, "n/m", "n m", "n\n", "é", "n\0", b"n", 1, None, ("n",), ["n"]],
    "NAMES": [
        (),
        ("b", "a"),
        ("a", "b", "b"),
        ("a", "c", "b"),
        ("a", "B"),
        ("site-9", "site-10"),
        tuple(f"{n:03}" for n in range(MOST_NAMES + 1)),
        ("a", "b/c"),
        ("", "a"),
        ("a", 1),
        (1, 2),
        ("a", None),
        ("a", ("b",)),
        ["a", "b"],
        {"a", "b"},
        {"a": "b"},
        "ab",
        "a",
        None,
    ],
    "PLACE": [0, *NO_NUMBER],
    "PLACE_OR_NONE": NO_NUMBER,
    "PLAN_STATE": ["complete", *NO_WORD],
    "BASE_STATE": ["refused", *NO_WORD],
    "OUTCOME": ["waiting", *NO_WORD],
    "LABELS": [
        ("b", "a"),
        ("a", "a"),
        ("A",),
        ("a b",),
        ("a_b",),
        ("a\n",),
        ("é",),
        ("",),
        ("x" * 41,),
        (b"a",),
        (1,),
        tuple(f"{n:02}" for n in range(MOST_LABELS + 1)),
        ["a"],
        {"a"},
        "a",
        "",
        None,
    ],
    "DOCUMENT": [OCTETS[:0], np.zeros(DOCUMENT_BYTES + 1, dtype=np.uint8), OCTETS[None], FLOATS, *NO_ARRAY],
    "CHUNK": [np.zeros(CHUNK_BYTES + 1, dtype=np.uint8), OCTETS[None], RING, *NO_ARRAY],
    "CODE": ["", "because", "Malformed", "malformed ", b"malformed", 1, None, ["malformed"], OCTETS],
    "VECTOR": [
        FLOATS * np.nan,
        FLOATS + np.inf,
        FLOATS - np.inf,
        FLOATS.astype(np.float64),
        FLOATS[None],
        OCTETS,
        RING,
        *NO_ARRAY,
    ],
    "RING": [RING.astype(np.int32), RING.astype(np.uint64), RING[None], RING[0], FLOATS, OCTETS, *NO_ARRAY],
    "BYTES": [OCTETS.astype(np.int8), OCTETS.astype(bool), OCTETS[None], OCTETS[0], FLOATS, RING, *NO_ARRAY],
    "SIGNATURE": [
        OCTETS[:0],
        OCTETS[:63],
        np.zeros(65, dtype=np.uint8),
        OCTETS.astype(np.int8),
        OCTETS[None],
        np.zeros(16, dtype=np.uint32),
        *NO_ARRAY,
    ],
}


def cases(table):
    return [(rule, value) for rule, values in table.items() for value in values]


def test_every_rule_is_tried():
    assert set(GOOD) == set(BAD) == set(RULES)


@pytest.mark.parametrize(("rule", "value"), cases(GOOD))
def test_a_good_value_holds(rule, value):
    assert RULES[rule].holds(value) is True


@pytest.mark.parametrize(("rule", "value"), cases(BAD))
def test_a_bad_value_is_told_without_an_error(rule, value):
    assert RULES[rule].holds(value) is False


def test_arrays_of_the_other_byte_order_do_not_hold():
    assert not RULES["VECTOR"].holds(FLOATS.astype(FLOATS.dtype.newbyteorder("S")))
    assert not RULES["RING"].holds(RING.astype(RING.dtype.newbyteorder("S")))


def test_a_rule_with_a_form_is_about_arrays_of_that_form():
    for name, rule in RULES.items():
        forms = {value.dtype.str for value in GOOD[name] if isinstance(value, np.ndarray)}
        assert forms == ({np.dtype(rule.dtype).newbyteorder("=").str} if rule.dtype else set())


def test_the_words_of_a_rule_name_its_limit():
    assert f"1 to {MOST_NAMES} " in RULES["NAMES"].must_be
    assert RULES["SIGNATURE"].must_be == "64 bytes"
    assert RULES["LABELS"].must_be.startswith(f"at most {MOST_LABELS} ")
    assert RULES["DOCUMENT"].must_be == f"1 to {2**20} bytes"
    assert RULES["CHUNK"].must_be == f"at most {8 * 2**20} bytes"
    for name, words in {"PLAN_STATE": PlanState, "BASE_STATE": BaseState, "OUTCOME": Outcome}.items():
        assert re.split(", | or ", RULES[name].must_be) == list(get_args(words))


def test_refusal_codes_are_words_that_hold_no_free_text():
    codes = get_args(RefusalCode)
    assert len(set(codes)) == len(codes)
    assert all(code.replace("-", "").isalpha() and code.islower() for code in codes)
    # Every code is explained where it is declared.
    explained = Path(fields.__file__).read_text(encoding="utf-8")
    assert [code for code in codes if f"{code}: " not in explained] == []
