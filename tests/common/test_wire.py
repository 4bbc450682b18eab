import hashlib
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from common import fields
from common.errors import IntegrityError
from common.identity import SIGNATURE_BYTES
from common.messages import FIELD_RULES, Refusal, RoundOrder, RoundReply
from common.secagg.messages import (
    Consent,
    MaskedOrder,
    MaskedReply,
    Reveal,
    RevealRequest,
    SessionInvite,
    SessionKeys,
    SessionRoster,
    SessionShares,
    SurvivorSet,
)
from common.study_messages import BaseChunk, BaseNeed, BaseQuery, PlanAnswer, PlanOffer, RunNoted, RunOver
from common.wire import HEADER_LIMIT_BYTES, KINDS, decode, encode, frame_bound, subject
from tests.vectors.wire.make import files

VECTORS = Path(__file__).parent.parent / "vectors" / "wire"
INDEX = json.loads((VECTORS / "index.json").read_text(encoding="ascii"))
PLAN = "0123456789abcdef" * 4
SESSION = "fedcba9876543210" * 4
COHORT = ("east", "north", "south")
PAIR, OTHERS = ("east", "north"), ("east", "south")


def counting(size):
    """`size` bytes that count up from it, as the script of the vectors makes them."""
    return (np.arange(size) + size).astype(np.uint8)


GOOD = {
    "good-round-order.hex": RoundOrder(PLAN, 3, np.float32([0.5, -1.0, 0.25]), np.float32([2.0])),
    "good-round-order-without-basis.hex": RoundOrder(PLAN, 3, np.float32([0.5, -1.0, 0.25]), np.float32([])),
    "good-round-reply.hex": RoundReply(PLAN, 3, "north", np.float32([0.5, -1.0])),
    "good-refusal.hex": Refusal(PLAN, 3, "north", "unexpected-round"),
    "good-session-invite.hex": SessionInvite(PLAN, SESSION, 3, 2),
    "good-session-keys.hex": SessionKeys(PLAN, SESSION, 3, 2, "north", counting(160), counting(64)),
    "good-session-roster.hex": SessionRoster(PLAN, SESSION, 3, 2, COHORT, counting(480), counting(192)),
    "good-session-shares.hex": SessionShares(PLAN, SESSION, "north", OTHERS, counting(328)),
    "good-masked-order.hex": MaskedOrder(PLAN, SESSION, 3, COHORT, np.float32([0.5, -1.0, 0.25]), np.float32([2.0])),
    "good-masked-reply.hex": MaskedReply(
        PLAN, SESSION, 3, "north", np.array([0x12345678, 2**32 - 1], dtype=np.uint32), counting(64)
    ),
    "good-survivor-set.hex": SurvivorSet(PLAN, SESSION, 3, PAIR, counting(128)),
    "good-consent.hex": Consent(PLAN, SESSION, 3, "north", counting(64)),
    "good-reveal-request.hex": RevealRequest(PLAN, SESSION, 3, PAIR, PAIR, counting(128), OTHERS, counting(164)),
    "good-reveal.hex": Reveal(PLAN, SESSION, 3, "north", OTHERS, counting(66)),
    "good-plan-offer.hex": PlanOffer(PLAN, counting(40)),
    "good-plan-answer.hex": PlanAnswer(PLAN, "north", "refused", ("expired", "too-few-sites")),
    "good-base-query.hex": BaseQuery(PLAN),
    "good-base-need.hex": BaseNeed(PLAN, "north", "lacking", 2, 3),
    "good-base-chunk.hex": BaseChunk(PLAN, 2, 3, 3, counting(40)),
    "good-run-over.hex": RunOver(PLAN, "finished"),
    "good-run-noted.hex": RunNoted(PLAN, "north"),
}


def vector(name):
    return bytes.fromhex((VECTORS / name).read_text(encoding="ascii"))


def decode_any(data):
    return decode(data, *KINDS.values())


def same(one, other):
    # Bytes and not values, so that -0.0 and 0.0 are told apart.
    form = lambda value: (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value  # noqa: E731
    return type(one) is type(other) and all(form(value) == form(vars(other)[name]) for name, value in vars(one).items())


def resealed(frame):
    return frame[:-32] + hashlib.sha256(frame[:-32]).digest()


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_there_is_a_good_vector_of_every_kind():
    assert {type(message) for message in GOOD.values()} == set(KINDS.values()) == set(FIELD_RULES)
    assert list(GOOD) == INDEX["good"]


def test_the_vectors_on_disk_are_the_ones_the_script_writes():
    on_disk = {
        path.name: path.read_text(encoding="ascii") for path in VECTORS.iterdir() if path.suffix in {".hex", ".json"}
    }
    assert on_disk == files()


@pytest.mark.parametrize("name", INDEX["good"])
def test_good_vectors_decode_and_encode_to_the_same_bytes(name):
    assert same(decode_any(vector(name)), GOOD[name])
    assert encode(GOOD[name]) == vector(name)


@pytest.mark.parametrize(("name", "fault"), INDEX["bad"].items())
def test_bad_vectors_are_refused_for_their_fault(name, fault):
    with pytest.raises(IntegrityError) as error:
        decode_any(vector(name))
    assert error.value.message.removeprefix("the frame ") == fault
    assert error.value.exit_code == 13


# --- what a frame may not be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INDEX["good"])
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_any_changed_byte_is_refused(name, mask):
    frame = vector(name)
    for position in range(len(frame)):
        changed = bytearray(frame)
        changed[position] ^= mask
        with pytest.raises(IntegrityError):
            decode_any(bytes(changed))


@pytest.mark.parametrize("name", INDEX["good"])
def test_any_truncation_is_refused_also_with_a_fitting_checksum(name):
    frame = vector(name)
    for length in range(len(frame)):
        with pytest.raises(IntegrityError):
            decode_any(frame[:length])
        if length < len(frame) - 32:
            with pytest.raises(IntegrityError):
                decode_any(frame[:length] + hashlib.sha256(frame[:length]).digest())


@st.composite
def forged_frames(draw):
    """A good frame with bytes changed, put in or taken out, and a checksum that fits."""
    body = bytearray(vector(draw(st.sampled_from(INDEX["good"])))[:-32])
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        body[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4) | JSON_PIECES)
    return body + hashlib.sha256(body).digest()


@st.composite
def forged_headers(draw):
    """A good frame with one entry of its header replaced by any JSON value, lengths and checksum fitting."""
    frame = vector(draw(st.sampled_from(INDEX["good"])))
    end = 10 + int.from_bytes(frame[6:10], "little")
    header = json.loads(frame[10:end])
    part = header[draw(st.sampled_from(["fields", "vectors"] if header["vectors"] else ["fields"]))]
    place = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
    if isinstance(part, list) and draw(st.booleans()):
        part, place = part[place], draw(st.integers(0, 2))
    part[place] = draw(json_values)
    written = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    start = frame[:6] + len(written).to_bytes(4, "little") + written
    return resealed(start + bytes(-len(start) % 8) + frame[end + -end % 8 :])


JSON_PIECES = st.sampled_from([b"[", b"]", b"{", b"}", b'"', b",", b":", b"-", b"1e999", b"NaN", b"null", b"\\ud800"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=500)
@given(st.one_of(forged_frames(), forged_headers()))
def test_whoever_can_compute_checksums_still_has_one_byte_string_for_one_message(forged):
    try:
        message = decode_any(bytes(forged))
    except IntegrityError:  # and no other error
        return
    assert encode(message) == forged


@given(st.binary(max_size=80), st.sampled_from(sorted(KINDS)))
def test_noise_is_refused_and_nothing_else_happens(noise, kind):
    for data in (noise, resealed(b"CLSR\x01" + bytes([kind]) + noise + bytes(32))):
        with pytest.raises(IntegrityError):
            decode_any(data)


@pytest.mark.parametrize("name", INDEX["good"])
def test_a_frame_is_refused_as_every_other_kind(name):
    frame = bytearray(vector(name))
    for number in set(range(256)) - {frame[5]}:
        frame[5] = number
        with pytest.raises(IntegrityError):
            decode_any(resealed(bytes(frame)))


def test_a_header_over_the_limit_is_refused_even_when_it_is_there():
    head = b"CLSR\x01\x01" + (HEADER_LIMIT_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(IntegrityError, match="header length that is too large"):
        decode(resealed(head + b" " * (HEADER_LIMIT_BYTES + 1) + bytes(32)), RoundOrder)


def test_a_frame_over_the_limit_is_refused_before_it_is_read():
    frame = vector("good-refusal.hex")
    with pytest.raises(IntegrityError, match=f"has {len(frame)} bytes and may have {len(frame) - 1}"):
        decode(frame, Refusal, limit_bytes=len(frame) - 1)
    assert decode(frame, Refusal, limit_bytes=len(frame)) == GOOD["good-refusal.hex"]


def test_a_good_frame_of_a_kind_not_expected_is_refused():
    with pytest.raises(IntegrityError, match="is a Refusal, which is not expected here"):
        decode(vector("good-refusal.hex"), RoundOrder, RoundReply)
    with pytest.raises(IntegrityError, match="is a Refusal, which is not expected here"):
        decode(vector("good-refusal.hex"), *(kind for kind in KINDS.values() if kind is not Refusal))
    assert isinstance(decode(vector("good-refusal.hex"), RoundReply, Refusal), Refusal)


# --- round trips -----------------------------------------------------------------------------------------------------

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
rounds = st.integers(1, 2**31 - 1)
sites = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
values = npst.arrays(
    np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)
octets = npst.arrays(np.uint8, st.integers(0, 20))
# One form a rule, so that a new kind is tried as soon as it has its rules.
FORMS = {
    fields.PLAN: digests,
    fields.SESSION: digests,
    fields.ROUND: rounds,
    fields.ROUND_OR_NONE: st.just(0) | rounds,
    fields.SITE: sites,
    fields.NAMES: st.sets(sites, min_size=1, max_size=5).map(sorted).map(tuple),
    fields.CODE: st.sampled_from(get_args(fields.RefusalCode)),
    fields.VECTOR: values,
    fields.RING: npst.arrays(np.uint32, st.integers(0, 20)),
    fields.BYTES: octets,
    fields.SIGNATURE: npst.arrays(np.uint8, 64),
    fields.DOCUMENT: npst.arrays(np.uint8, st.integers(1, 20)),
    fields.CHUNK: octets,
    fields.PLACE: rounds,
    fields.PLACE_OR_NONE: st.just(0) | rounds,
    fields.LABELS: st.sets(st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True), max_size=5).map(sorted).map(tuple),
    fields.PLAN_STATE: st.sampled_from(get_args(fields.PlanState)),
    fields.BASE_STATE: st.sampled_from(get_args(fields.BaseState)),
    fields.OUTCOME: st.sampled_from(get_args(fields.Outcome)),
}
messages = st.one_of(
    st.builds(kind, **{name: FORMS[rule] for name, rule in rules.items()}) for kind, rules in FIELD_RULES.items()
)


@settings(max_examples=300)
@given(messages)
def test_round_trip(message):
    frame = encode(message)
    decoded = decode_any(frame)
    assert same(decoded, message)
    assert encode(decoded) == frame


@given(messages)
def test_the_bound_holds_and_vectors_are_aligned_and_read_only(message):
    frame = encode(message)
    vectors = [value for value in vars(decode_any(frame)).values() if isinstance(value, np.ndarray)]
    assert len(frame) <= frame_bound(sum(len(values) for values in vectors))
    for values in vectors:
        assert values.flags.aligned
        assert not values.flags.writeable


@given(messages)
def test_the_subject_of_a_frame_is_its_plan_and_its_round_if_it_has_one(message):
    assert subject(encode(message)) == (message.plan_digest, getattr(message, "round_number", 0))


@pytest.mark.parametrize("kind", FIELD_RULES)
def test_wider_values_travel_first_so_that_all_are_aligned(kind):
    sizes = [np.dtype(rule.dtype).itemsize for rule in FIELD_RULES[kind].values() if rule.dtype]
    assert sizes == sorted(sizes, reverse=True)


LONGEST_NAMES = tuple(f"{place:03}".ljust(64, "n") for place in range(fields.MOST_NAMES))
LONGEST = {
    fields.PLAN: "f" * 64,
    fields.SESSION: "f" * 64,
    fields.ROUND: 2**31 - 1,
    fields.ROUND_OR_NONE: 2**31 - 1,
    fields.SITE: "n" * 64,
    fields.NAMES: LONGEST_NAMES,
    fields.CODE: max(get_args(fields.RefusalCode), key=len),
    fields.VECTOR: np.zeros(300_000, dtype=np.float32),
    fields.RING: np.zeros(300_000, dtype=np.uint32),
    fields.BYTES: np.zeros(fields.MOST_NAMES * SIGNATURE_BYTES, dtype=np.uint8),
    fields.SIGNATURE: np.zeros(SIGNATURE_BYTES, dtype=np.uint8),
    fields.DOCUMENT: np.zeros(fields.DOCUMENT_BYTES, dtype=np.uint8),
    fields.CHUNK: np.zeros(fields.CHUNK_BYTES, dtype=np.uint8),
    fields.PLACE: 2**31 - 1,
    fields.PLACE_OR_NONE: 2**31 - 1,
    fields.LABELS: tuple(f"{place:02}".ljust(40, "x") for place in range(fields.MOST_LABELS)),
    fields.PLAN_STATE: "accepted",
    fields.BASE_STATE: "complete",
    fields.OUTCOME: "finished",
}
LARGEST = [kind(**{name: LONGEST[rule] for name, rule in rules.items()}) for kind, rules in FIELD_RULES.items()]


def header_size(message):
    return int.from_bytes(encode(message)[6:10], "little")


def test_the_header_limit_is_the_lowest_power_of_two_for_the_longest_names():
    # A length of more digits than here has ten at most, for the 2^32 bytes that no frame has.
    assert HEADER_LIMIT_BYTES // 2 < max(map(header_size, LARGEST)) + 2 * 10 <= HEADER_LIMIT_BYTES
    for message in LARGEST:
        assert same(decode_any(encode(message)), message)


def test_a_vector_with_gaps_is_written_as_its_values():
    spaced = np.arange(6, dtype=np.float32)[::2]
    assert same(
        decode(encode(RoundReply(PLAN, 1, "north", spaced)), RoundReply), RoundReply(PLAN, 1, "north", spaced.copy())
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_message_that_is_not_finite_is_never_written(value):
    with pytest.raises(IntegrityError, match="`update` of a RoundReply must be a finite float32 vector"):
        encode(RoundReply(PLAN, 1, "north", np.float32([0.0, value])))


# --- the page that describes it --------------------------------------------------------------------------------------

PAGE = (Path(__file__).parent.parent.parent / "docs" / "wire-format.md").read_text(encoding="utf-8")


def dump(frame):
    rows = [frame[start : start + 16] for start in range(0, len(frame), 16)]
    shown = ["".join(chr(octet) if 32 <= octet < 127 else "." for octet in row) for row in rows]
    return "\n".join(f"{16 * place:4}  {row.hex(' '):47}  {shown[place]}" for place, row in enumerate(rows))


def rows_of(chapter):
    """The cells of the last table of a chapter, without its head; a bar within a cell is written as `\\|`."""
    lines = PAGE.split(f"## {chapter}\n")[1].split("\n## ")[0].split("|---|\n")[-1].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]


def test_the_page_shows_two_frames_that_are_in_the_vectors():
    shown = re.findall(r"`tests/vectors/wire/(good-[a-z-]+\.hex)`.*?```\n(.*?)\n```", PAGE, flags=re.DOTALL)
    assert [name for name, _ in shown] == ["good-round-reply.hex", "good-masked-reply.hex"]
    for name, text in shown:
        assert text == dump(vector(name))


def test_the_page_numbers_every_kind():
    assert re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, flags=re.MULTILINE) == [
        (str(number), kind.__name__) for number, kind in KINDS.items()
    ]


def test_the_page_names_every_field_and_form():
    named, forms, kind = {}, {}, ""
    for head, names, form in rows_of("The kinds"):
        kind = head or kind
        named.setdefault(kind, []).extend(re.findall(r"`(\w+)`", names))
        forms.update({(kind, name): form for name in re.findall(r"`(\w+)`", names)})
    assert named == {kind.__name__: list(rules) for kind, rules in FIELD_RULES.items()}
    for kind, rules in FIELD_RULES.items():
        for name, rule in rules.items():
            form = forms[kind.__name__, name].replace("\\|", "|")
            assert form.startswith((f"`{rule.dtype}`", "as in a RoundOrder")) == bool(rule.dtype), (kind, name)
            assert form.startswith(("list of names", "as above")) or rule is not fields.NAMES, (kind, name)


def test_the_page_names_every_code_and_the_limit():
    assert [row[0].strip("`") for row in rows_of("Refusal codes")] == list(get_args(fields.RefusalCode))
    assert f"at most {HEADER_LIMIT_BYTES:,} |" in PAGE
    assert f"{fields.MOST_NAMES} names of 64 characters, has {max(map(header_size, LARGEST)):,} bytes" in PAGE
