import hashlib
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from common.errors import IntegrityError
from common.fields import RefusalCode
from common.messages import FIELD_RULES, Refusal, RoundOrder, RoundReply
from common.wire import HEADER_LIMIT_BYTES, KINDS, decode, encode, frame_bound
from tests.vectors.wire.make import files

VECTORS = Path(__file__).parent.parent / "vectors" / "wire"
INDEX = json.loads((VECTORS / "index.json").read_text(encoding="ascii"))
PLAN = "0123456789abcdef" * 4
GOOD = {
    "good-round-order.hex": RoundOrder(PLAN, 3, np.float32([0.5, -1.0, 0.25]), np.float32([2.0])),
    "good-round-order-without-basis.hex": RoundOrder(PLAN, 3, np.float32([0.5, -1.0, 0.25]), np.float32([])),
    "good-round-reply.hex": RoundReply(PLAN, 3, "north", np.float32([0.5, -1.0])),
    "good-refusal.hex": Refusal(PLAN, 3, "north", "unexpected-round"),
}


def vector(name):
    return bytes.fromhex((VECTORS / name).read_text(encoding="ascii"))


def decode_any(data):
    """Decode as whatever kind it is; the number of the kind is the byte after the version."""
    return decode(data, KINDS.get(data[5], RoundOrder) if len(data) > 5 else RoundOrder)


def same(one, other):
    # Bytes and not values, so that -0.0 and 0.0 are told apart.
    form = lambda value: (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value  # noqa: E731
    return type(one) is type(other) and all(form(value) == form(vars(other)[name]) for name, value in vars(one).items())


def resealed(frame):
    return frame[:-32] + hashlib.sha256(frame[:-32]).digest()


# --- vectors ---------------------------------------------------------------------------------------------------------


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


@given(st.sampled_from(INDEX["good"]), st.data())
def test_whoever_can_compute_checksums_still_has_one_byte_string_for_one_message(name, data):
    frame = bytearray(vector(name))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 33))] = data.draw(st.integers(0, 255))
    forged = resealed(bytes(frame))
    try:
        message = decode_any(forged)
    except IntegrityError:
        return
    assert encode(message) == forged


@given(st.binary(max_size=80), st.integers(1, 3))
def test_noise_is_refused_and_nothing_else_happens(noise, kind):
    for data in (noise, resealed(b"CLSR\x01" + bytes([kind]) + noise + bytes(32))):
        with pytest.raises(IntegrityError):
            decode_any(data)


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
    assert isinstance(decode(vector("good-refusal.hex"), RoundReply, Refusal), Refusal)


# --- round trips -----------------------------------------------------------------------------------------------------

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
rounds = st.integers(1, 2**31 - 1)
sites = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
values = npst.arrays(
    np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)
messages = st.one_of(
    st.builds(RoundOrder, digests, rounds, values, values),
    st.builds(RoundReply, digests, rounds, sites, values),
    st.builds(Refusal, digests, st.just(0) | rounds, sites, st.sampled_from(["malformed", "no-update"])),
)


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


def test_the_page_shows_the_frame_that_is_in_the_vectors():
    lines = re.findall(r"^ *\d+  ((?:[0-9a-f]{2} ?)+) ", PAGE, flags=re.MULTILINE)
    assert bytes.fromhex("".join(lines)) == vector("good-round-reply.hex")


def test_the_page_names_every_kind_field_and_code():
    for number, kind in KINDS.items():
        assert f"{number} `{kind.__name__}`" in PAGE
        for name in FIELD_RULES[kind]:
            assert f"`{name}`" in PAGE
    codes = PAGE.split("## Refusal codes")[1].split("##")[0]
    assert re.findall(r"^\| `([a-z-]+)`", codes, flags=re.MULTILINE) == list(get_args(RefusalCode))
