import hashlib
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from common.canonical import canonical_bytes
from common.envelope import (
    ENVELOPE_LIMIT_BYTES,
    HEADER_LIMIT_BYTES,
    Envelope,
    envelope_bound,
    open_envelope,
    seal,
)
from common.errors import IntegrityError
from common.identity import new_identity, public_name
from common.wire import FRAME_LIMIT_BYTES
from tests.vectors.envelope.make import FEDERATION, ORDER, REFUSAL, files, name_of, secret
from tests.vectors.envelope.make import REQUEST as REQUEST_FIELDS
from tests.vectors.wire.make import PLAN

VECTORS = Path(__file__).parent.parent / "vectors" / "envelope"
INDEX = json.loads((VECTORS / "index.json").read_text(encoding="ascii"))
IDENTITIES = {name: Ed25519PrivateKey.from_private_bytes(secret(name)) for name in INDEX["identities"]}
COORDINATOR = INDEX["identities"]["coordinator"]
MOST = 2**31 - 1

OUT = {"sender_key": INDEX["identities"]["coordinator"], "recipient_key": INDEX["identities"]["north"]}
BACK = {"sender_key": INDEX["identities"]["north"], "recipient_key": INDEX["identities"]["coordinator"]}
REQUEST = Envelope(FEDERATION, PLAN, 3, 7, 0, "coordinator", "north", ORDER, **OUT)
GOOD = {
    "good-request.hex": REQUEST,
    "good-reply.hex": Envelope(FEDERATION, PLAN, 3, 7, 7, "north", "coordinator", REFUSAL, REQUEST.digest, **BACK),
    "good-empty-body.hex": replace(REQUEST, body=b""),
    "good-longest-header.hex": Envelope(
        FEDERATION, PLAN, MOST, MOST, MOST, "s" * 64, "r" * 64, ORDER, "0f" * 32, **OUT
    ),
}


def vector(name):
    return bytes.fromhex((VECTORS / name).read_text(encoding="ascii"))


def signer_of(name):
    return "north" if name == "good-reply.hex" else "coordinator"


def header_end(data):
    return 9 + int.from_bytes(data[5:9], "little")


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_the_vectors_on_disk_are_the_ones_the_script_writes():
    on_disk = {
        path.name: path.read_text(encoding="ascii") for path in VECTORS.iterdir() if path.suffix in {".hex", ".json"}
    }
    assert on_disk == files()


@pytest.mark.parametrize("name", INDEX["good"])
def test_good_vectors_open_and_seal_to_the_same_bytes(name):
    signer = signer_of(name)
    assert open_envelope(vector(name)).checked(INDEX["identities"][signer]) == GOOD[name]
    assert seal(GOOD[name], IDENTITIES[signer]) == vector(name)


@pytest.mark.parametrize(("name", "fault"), INDEX["unreadable"].items())
def test_what_has_a_second_spelling_or_breaks_a_rule_is_refused_for_its_fault(name, fault):
    with pytest.raises(IntegrityError) as error:
        open_envelope(vector(name))
    assert error.value.message.removeprefix("the envelope ") == fault
    assert error.value.exit_code == 13


@pytest.mark.parametrize(("name", "fault"), INDEX["unsigned"].items())
def test_what_the_expected_key_did_not_sign_is_not_shown(name, fault):
    sealed = open_envelope(vector(name))
    with pytest.raises(IntegrityError, match=fault):
        sealed.checked(COORDINATOR)


def test_the_name_of_an_envelope_is_the_digest_of_what_is_signed():
    assert REQUEST.digest == open_envelope(vector("good-request.hex")).digest == name_of(REQUEST_FIELDS)
    others = [replace(REQUEST, **{name: value}) for name, value in CHANGES.items()]
    assert len({REQUEST.digest, *(other.digest for other in others)}) == 1 + len(others)


# --- what the signature covers ---------------------------------------------------------------------------------------

CHANGES = {
    "federation": "0f" * 32,
    "plan_digest": "0f" * 32,
    "round_number": 4,
    "sequence": 8,
    "acknowledged": 1,
    "sender": "south",
    "recipient": "south",
    "body": ORDER[:-1] + b"x",
    "answers": "0f" * 32,
    "sender_key": "0f" * 32,
    "recipient_key": "0f" * 32,
}


def test_the_changes_are_of_every_field():
    assert list(CHANGES) == [field.name for field in fields(Envelope)]


@pytest.mark.parametrize("field", CHANGES)
def test_a_signature_is_for_every_field(field):
    other = seal(replace(REQUEST, **{field: CHANGES[field]}), IDENTITIES["coordinator"])
    assert open_envelope(other).checked(COORDINATOR) == replace(REQUEST, **{field: CHANGES[field]})
    swapped = other[:-64] + vector("good-request.hex")[-64:]
    with pytest.raises(IntegrityError, match="is not signed by the key"):
        open_envelope(swapped).checked(COORDINATOR)


def test_swapped_bodies_of_two_valid_envelopes_fit_neither():
    one = seal(replace(REQUEST, body=b"one"), IDENTITIES["coordinator"])
    two = seal(replace(REQUEST, body=b"two", sequence=8), IDENTITIES["coordinator"])
    for head, body in ((one, two), (two, one)):
        swapped = head[: header_end(head)] + body[header_end(body) : -64] + head[-64:]
        with pytest.raises(IntegrityError, match="is not signed by the key"):
            open_envelope(swapped).checked(COORDINATOR)


@pytest.mark.parametrize("name", ["good-reply.hex", "good-empty-body.hex"])
@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_any_changed_byte_is_refused(name, mask):
    data = vector(name)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= mask
        with pytest.raises(IntegrityError):
            open_envelope(bytes(changed)).checked(INDEX["identities"][signer_of(name)])


def test_any_truncation_is_refused():
    data = vector("good-reply.hex")
    for length in range(len(data)):
        with pytest.raises(IntegrityError):
            open_envelope(data[:length]).checked(INDEX["identities"]["north"])


@pytest.mark.parametrize("public", ["", "00", "zz" * 32, "f" * 63])
def test_what_is_no_key_has_signed_nothing(public):
    with pytest.raises(IntegrityError, match="is not signed by the key"):
        open_envelope(vector("good-request.hex")).checked(public)


# --- one spelling ----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
PIECES = st.sampled_from([b"[", b"]", b"{", b"}", b'"', b",", b":", b"-", b"1e9", b"NaN", b"null", b"\\ud800", b" "])


@st.composite
def forged(draw):
    """A good envelope with one field of its header replaced by any value, or bytes changed, put in or taken out."""
    data = bytearray(vector("good-reply.hex"))
    if draw(st.booleans()):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4) | PIECES)
        return bytes(data)
    header = json.loads(data[9 : header_end(data)])
    header[draw(st.sampled_from(sorted(header)))] = draw(json_values)
    text = canonical_bytes(header)
    return bytes(data[:5]) + len(text).to_bytes(4, "little") + text + bytes(data[header_end(data) :])


@settings(max_examples=150)
@given(forged())
def test_what_opens_is_sealed_to_the_same_bytes(data):
    """Whatever the signature says: two spellings of one envelope would be two names for one request."""
    try:
        sealed = open_envelope(data)
    except IntegrityError:  # and no other error
        return
    said = {name: value for name, value in sealed.header.items() if name != "body_bytes"}
    again = seal(Envelope(**said, body=bytes(sealed.body)), IDENTITIES["north"])
    assert again[:-64] == data[:-64]


@given(st.binary(max_size=120))
def test_noise_is_refused_and_nothing_else_happens(noise):
    for data in (noise, b"CLSE\x01" + noise + bytes(64)):
        with pytest.raises(IntegrityError):
            open_envelope(data)


digests = st.text("0123456789abcdef", min_size=64, max_size=64)
sites = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
envelopes = st.builds(
    Envelope,
    federation=digests, plan_digest=digests, round_number=st.integers(0, MOST), sequence=st.integers(1, MOST),
    acknowledged=st.integers(0, MOST), sender=sites, recipient=sites, body=st.binary(max_size=40),
    answers=st.just("") | digests, sender_key=digests, recipient_key=digests,
)  # fmt: skip


@settings(max_examples=50)
@given(envelopes)
def test_round_trip_within_the_bound(envelope):
    identity = new_identity()
    data = seal(envelope, identity)
    assert open_envelope(data).checked(public_name(identity)) == envelope
    assert open_envelope(data).digest == envelope.digest
    assert len(data) <= envelope_bound(len(envelope.body))


def test_the_header_limit_is_the_lowest_power_of_two_for_the_longest_header():
    longest = {**GOOD["good-longest-header.hex"].header, "body_bytes": MOST}
    assert HEADER_LIMIT_BYTES // 2 < len(canonical_bytes(longest)) == 655 <= HEADER_LIMIT_BYTES
    assert ENVELOPE_LIMIT_BYTES == FRAME_LIMIT_BYTES + HEADER_LIMIT_BYTES + 9 + 64


def test_an_envelope_over_the_limit_is_refused_before_it_is_read():
    data = vector("good-request.hex")
    with pytest.raises(IntegrityError, match=f"has {len(data)} bytes and may have {len(data) - 1}"):
        open_envelope(data, limit_bytes=len(data) - 1)
    assert open_envelope(data, limit_bytes=len(data)).checked(COORDINATOR) == REQUEST


@pytest.mark.parametrize(
    ("field", "value"),
    [("federation", "x"), ("sequence", 0), ("sequence", True), ("sender", ""), ("recipient", "a/b"), ("answers", "1")],
)
def test_what_breaks_a_rule_is_never_sealed(field, value):
    with pytest.raises(IntegrityError, match=f"`{field}` of an envelope must be"):
        seal(replace(REQUEST, **{field: value}), IDENTITIES["coordinator"])


# --- large bodies ----------------------------------------------------------------------------------------------------


def test_a_body_is_read_in_place_and_copied_only_for_a_good_signature():
    data = seal(replace(REQUEST, body=bytes(1 << 20)), IDENTITIES["coordinator"])
    sealed = open_envelope(data)
    assert sealed.body.obj is data
    assert sealed.checked(COORDINATOR).body == bytes(1 << 20)


def test_a_body_is_hashed_once_for_seal_and_name(monkeypatch):
    hashed = []

    def sha256(content=b""):
        hashed.append(len(content))
        return original(content)

    original = hashlib.sha256
    monkeypatch.setattr("common.envelope.hashlib.sha256", sha256)
    envelope = replace(REQUEST, body=bytes(5000))
    data = seal(envelope, IDENTITIES["coordinator"])
    assert (envelope.digest, hashed.count(5000)) == (envelope.digest, 1)
    sealed = open_envelope(data)
    assert (sealed.checked(COORDINATOR), sealed.digest) == (envelope, envelope.digest)
    assert hashed.count(5000) == 2


# --- the page that describes it --------------------------------------------------------------------------------------

PAGE = (Path(__file__).parent.parent.parent / "docs" / "wire-format.md").read_text(encoding="utf-8")
CHAPTER = PAGE.split("## An envelope\n")[1].split("\n## ")[0]


def dump(data):
    rows = [data[start : start + 16] for start in range(0, len(data), 16)]
    shown = ["".join(chr(octet) if 32 <= octet < 127 else "." for octet in row) for row in rows]
    return "\n".join(f"{16 * place:4}  {row.hex(' '):47}  {shown[place]}" for place, row in enumerate(rows))


def test_the_page_names_every_field_and_the_limit():
    assert sorted(re.findall(r"^\| `(\w+)` \|", CHAPTER, flags=re.MULTILINE)) == sorted(REQUEST.header)
    assert f"at most {HEADER_LIMIT_BYTES} |" in CHAPTER


def test_the_page_shows_an_envelope_that_is_in_the_vectors():
    shown = re.findall(r"`tests/vectors/envelope/(good-[a-z-]+\.hex)`.*?```\n(.*?)\n```", CHAPTER, flags=re.DOTALL)
    assert [(name, text == dump(vector(name))) for name, text in shown] == [("good-empty-body.hex", True)]
