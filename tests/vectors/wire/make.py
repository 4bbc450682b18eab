"""Writes the wire vectors: one good frame of each kind, and bad ones with one fault each, named after the fault.

It builds frames by hand and does not import `common.wire`, so that it can disagree with it. Every bad frame carries a
fitting checksum, unless the checksum is its fault. Run it anywhere: `python tests/vectors/wire/make.py`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

PLAN = "0123456789abcdef" * 4
PLAN_FIELD = {"plan_digest": PLAN}
ORDER_FIELDS = {"plan_digest": PLAN, "round_number": 3}
ORDER_VECTORS = [["weights", "<f4", 3], ["basis", "<f4", 1]]
ORDER_VALUES = struct.pack("<4f", 0.5, -1.0, 0.25, 2.0)
REPLY_FIELDS = {**ORDER_FIELDS, "site": "north"}
REFUSAL_FIELDS = {**REPLY_FIELDS, "code": "unexpected-round"}
SESSION_FIELDS = {"plan_digest": PLAN, "session": "fedcba9876543210" * 4}
SPAN_FIELDS = {**SESSION_FIELDS, "first_round": 3, "rounds": 2}
MASKED_FIELDS = {**SESSION_FIELDS, "round_number": 3}
MASKED_VALUES = struct.pack("<2I", 0x12345678, 2**32 - 1)
COHORT = ["east", "north", "south"]
NAMES_RULE = "must be 1 to 512 different site names in order"
SITE_RULE = "must be a site name of 1 to 64 letters, digits, dots, hyphens or underscores"


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def header(fields=None, vectors=None):
    return canonical({"fields": fields or ORDER_FIELDS, "vectors": ORDER_VECTORS if vectors is None else vectors})


def sealed(body):
    return body + hashlib.sha256(body).digest()


def frame(head=None, values=ORDER_VALUES, kind=1, magic=b"CLSR", version=1, length=None, pad=b"\0", after=b""):
    head = header() if head is None else head
    start = magic + bytes([version, kind]) + struct.pack("<I", len(head) if length is None else length) + head
    return sealed(start + pad * (-len(start) % 8) + values + after)


def counting(size):
    return bytes((size + place) % 256 for place in range(size))


def of_bytes(kind, fields, **sizes):
    """A frame whose vectors are bytes, each counting up from its own size."""
    declared = [[name, "|u1", size] for name, size in sizes.items()]
    return frame(header(fields, declared), b"".join(map(counting, sizes.values())), kind)


def masked_reply(values=MASKED_VALUES, dtype="<u4", count=2, signature=64, kind=9):
    declared = [["masked", dtype, count], ["signature", "|u1", signature]]
    return frame(header({**MASKED_FIELDS, "site": "north"}, declared), values + counting(signature), kind)


def survivor_set(survivors):
    return of_bytes(10, {**MASKED_FIELDS, "survivors": survivors}, signatures=128)


def consent(size=64, **changes):
    return of_bytes(11, {**MASKED_FIELDS, "site": "north", **changes}, signature=size)


def good():
    return {**good_plain(), **good_masked(), **good_study()}


def good_plain():
    return {
        "round-order": frame(),
        "round-order-without-basis": frame(
            header(vectors=[["weights", "<f4", 3], ["basis", "<f4", 0]]), ORDER_VALUES[:12]
        ),
        "round-reply": frame(header(REPLY_FIELDS, [["update", "<f4", 2]]), ORDER_VALUES[:8], kind=2),
        "refusal": frame(header(REFUSAL_FIELDS, []), b"", kind=3),
    }


def good_masked():
    """Two rounds, three sites, and sizes as the protocol has them."""
    asked = {**MASKED_FIELDS, "survivors": COHORT[:2], "signers": COHORT[:2], "dealers": ["east", "south"]}
    return {
        "session-invite": of_bytes(4, SPAN_FIELDS),
        "session-keys": of_bytes(5, {**SPAN_FIELDS, "site": "north"}, keys=160, signature=64),
        "session-roster": of_bytes(6, {**SPAN_FIELDS, "sites": COHORT}, keys=480, signatures=192),
        "session-shares": of_bytes(
            7, {**SESSION_FIELDS, "site": "north", "recipients": ["east", "south"]}, sealed=2 * 2 * 82
        ),
        "masked-order": frame(header({**MASKED_FIELDS, "cohort": COHORT}, ORDER_VECTORS), ORDER_VALUES, kind=8),
        "masked-reply": masked_reply(),
        "survivor-set": survivor_set(COHORT[:2]),
        "consent": consent(),
        "reveal-request": of_bytes(12, asked, signatures=128, sealed=164),
        "reveal": of_bytes(13, {**MASKED_FIELDS, "site": "north", "owners": ["east", "south"]}, shares=66),
    }


def good_study():
    return {
        "plan-offer": of_bytes(14, PLAN_FIELD, document=40),
        "plan-answer": plan_answer(["expired", "too-few-sites"]),
        "base-query": of_bytes(16, PLAN_FIELD),
        "base-need": base_need(),
        "base-chunk": base_chunk(),
        "run-over": of_bytes(19, {**PLAN_FIELD, "outcome": "finished"}),
        "run-noted": of_bytes(20, {**PLAN_FIELD, "site": "north"}),
    }


def plan_answer(codes, state="refused"):
    return of_bytes(15, {**PLAN_FIELD, "site": "north", "state": state, "codes": codes})


def base_need(**changes):
    needed = {"state": "lacking", "file_number": 2, "chunk_number": 3}
    return of_bytes(17, {**PLAN_FIELD, "site": "north", **needed, **changes})


def base_chunk(**changes):
    return of_bytes(18, {**PLAN_FIELD, "file_number": 2, "chunk_number": 3, "chunks": 3, **changes}, content=40)


def with_field(**changes):
    return frame(header({**ORDER_FIELDS, **changes}))


def with_value(bits):
    return frame(values=ORDER_VALUES[:12] + bits)


def bad():
    return {**bad_plain(), **bad_names(), **bad_masked(), **bad_study()}


def bad_plain():
    whole = frame()
    plain = header()
    without_round = header({"plan_digest": PLAN})
    return {
        # the fixed parts
        "empty": (b"", "is shorter than its fixed parts"),
        "wrong-magic": (frame(magic=b"CLSX"), "does not start with the magic bytes"),
        "later-version": (frame(version=2), "is not of version 1"),
        "unknown-kind": (frame(kind=200), "is of an unknown kind"),
        "kind-zero": (frame(kind=0), "is of an unknown kind"),
        "wrong-checksum": (whole[:-1] + bytes([whole[-1] ^ 1]), "does not match its checksum"),
        "truncated": (whole[:-5], "does not match its checksum"),
        "header-length-beyond-frame": (frame(length=4096), "has a header length that is too large"),
        # the header
        "header-not-json": (frame(plain[:-1]), "has a header that is not JSON"),
        "header-not-ascii": (frame(plain.replace(b"basis", b"b\xc3\xa4is")), "has a header that is not JSON"),
        "header-nested-without-end": (frame(b"[" * 2000), "has a header that is not JSON"),
        "header-with-infinity": (frame(plain.replace(b":3}", b":Infinity}")), "has a header that is not JSON"),
        "header-with-a-space": (frame(plain.replace(b":3}", b": 3}")), "has a header that is not canonical"),
        "header-keys-unsorted": (
            frame(canonical({"vectors": ORDER_VECTORS})[:-1] + b"," + canonical({"fields": ORDER_FIELDS})[1:]),
            "has a header that is not canonical",
        ),
        "header-repeated-key": (
            frame(plain.replace(b'"round_number":3', b'"round_number":4,"round_number":3')),
            "has a header that is not canonical",
        ),
        "header-not-a-table": (frame(b"[]"), "has a header without exactly the keys `fields` and `vectors`"),
        "header-extra-table": (
            frame(canonical({"extra": 1, "fields": ORDER_FIELDS, "vectors": ORDER_VECTORS})),
            "has a header without exactly the keys `fields` and `vectors`",
        ),
        # the fields
        "unknown-field": (with_field(note="hello"), "has an unknown or missing field for a RoundOrder"),
        "missing-field": (frame(without_round), "has an unknown or missing field for a RoundOrder"),
        "fields-not-a-table": (
            frame(canonical({"fields": [], "vectors": ORDER_VECTORS})),
            "has an unknown or missing field for a RoundOrder",
        ),
        "plan-digest-not-hexadecimal": (
            with_field(plan_digest="x" * 64),
            "`plan_digest` of a RoundOrder must be 64 hexadecimal digits",
        ),
        "plan-digest-a-number": (
            with_field(plan_digest=7),
            "`plan_digest` of a RoundOrder must be 64 hexadecimal digits",
        ),
        "round-zero": (with_field(round_number=0), "`round_number` of a RoundOrder must be a whole number from 1"),
        "round-a-float": (with_field(round_number=3.0), "`round_number` of a RoundOrder must be a whole number from 1"),
        "round-a-truth-value": (
            with_field(round_number=True),
            "`round_number` of a RoundOrder must be a whole number from 1",
        ),
        "round-too-large": (
            with_field(round_number=2**31),
            "`round_number` of a RoundOrder must be a whole number from 1",
        ),
        "site-with-a-slash": (
            frame(header({**REPLY_FIELDS, "site": "../north"}, [["update", "<f4", 2]]), ORDER_VALUES[:8], kind=2),
            "`site` of a RoundReply must be a site name of 1 to 64 letters, digits, dots, hyphens or underscores",
        ),
        "refusal-with-free-text": (
            frame(header({**REFUSAL_FIELDS, "code": "the patient was not found"}, []), b"", kind=3),
            "`code` of a Refusal must be a known refusal code",
        ),
        # the vectors
        "unknown-vector": (
            frame(header(vectors=[*ORDER_VECTORS, ["more", "<f4", 0]])),
            "has an unknown or missing vector for a RoundOrder",
        ),
        "missing-vector": (
            frame(header(vectors=[["weights", "<f4", 4]])),
            "has an unknown or missing vector for a RoundOrder",
        ),
        "vectors-swapped": (
            frame(header(vectors=[["basis", "<f4", 1], ["weights", "<f4", 3]])),
            "does not declare the vector `weights` where it belongs",
        ),
        "vector-of-doubles": (
            frame(header(vectors=[["weights", "<f8", 1], ["basis", "<f4", 2]])),
            "declares another type than <f4 for the vector `weights`",
        ),
        "vector-length-negative": (
            frame(header(vectors=[["weights", "<f4", 5], ["basis", "<f4", -1]])),
            "declares a length of the vector `basis` that is no count",
        ),
        "vector-length-a-float": (
            frame(header(vectors=[["weights", "<f4", 3.0], ["basis", "<f4", 1]])),
            "declares a length of the vector `weights` that is no count",
        ),
        "vector-longer-than-frame": (
            frame(header(vectors=[["weights", "<f4", 10**15], ["basis", "<f4", 1]])),
            "has more or fewer bytes than its header declares",
        ),
        "vector-not-a-number": (
            with_value(struct.pack("<f", float("nan"))),
            "`basis` of a RoundOrder must be a finite float32 vector",
        ),
        "vector-infinite": (
            with_value(struct.pack("<f", float("-inf"))),
            "`basis` of a RoundOrder must be a finite float32 vector",
        ),
        "padding-not-zero": (frame(pad=b"\1"), "has padding that is not zero"),
        "trailing-bytes": (frame(after=b"\0"), "has more or fewer bytes than its header declares"),
        "trailing-bytes-after-checksum": (whole + b"\0", "does not match its checksum"),
    }


def bad_names():
    rule = f"`survivors` of a SurvivorSet {NAMES_RULE}"
    return {
        "names-not-sorted": (survivor_set(["north", "east"]), rule),
        "names-repeated": (survivor_set(["east", "north", "north"]), rule),
        "names-empty": (survivor_set([]), rule),
        "names-more-than-512": (survivor_set([f"s{place:03}" for place in range(513)]), rule),
        "names-one-text": (survivor_set("east"), rule),
        "names-a-table": (survivor_set({"east": "north"}), rule),
        "names-none": (survivor_set(None), rule),
        "names-with-a-number": (survivor_set(["east", 3]), rule),
        "names-with-a-list": (survivor_set(["east", ["north"]]), rule),
        "names-with-a-slash": (survivor_set(["east", "north/.."]), rule),
        "site-a-list": (consent(site=["north"]), f"`site` of a Consent {SITE_RULE}"),
        "session-a-list": (
            consent(session=[MASKED_FIELDS["session"]]),
            "`session` of a Consent must be 64 hexadecimal digits",
        ),
        "round-a-list": (consent(round_number=[3]), "`round_number` of a Consent must be a whole number from 1"),
    }


def bad_masked():
    other_type = "declares another type than <u4 for the vector `masked`"
    return {
        "masked-as-floats": (masked_reply(dtype="<f4"), other_type),
        "masked-as-signed": (masked_reply(dtype="<i4"), other_type),
        "masked-big-endian": (masked_reply(dtype=">u4"), other_type),
        "masked-as-bytes": (masked_reply(dtype="|u1", count=8), other_type),
        "masked-type-a-list": (masked_reply(dtype=["<u4"]), other_type),
        "masked-half-a-value": (masked_reply(values=bytes(7)), "has more or fewer bytes than its header declares"),
        "bytes-as-wide-values": (
            frame(header({**MASKED_FIELDS, "site": "north"}, [["signature", "<u4", 16]]), bytes(64), kind=11),
            "declares another type than |u1 for the vector `signature`",
        ),
        "bytes-cut-short": (
            frame(header({**MASKED_FIELDS, "site": "north"}, [["signature", "|u1", 64]]), bytes(63), kind=11),
            "has more or fewer bytes than its header declares",
        ),
        "bytes-with-one-more": (
            frame(header({**MASKED_FIELDS, "site": "north"}, [["signature", "|u1", 64]]), bytes(65), kind=11),
            "has more or fewer bytes than its header declares",
        ),
        "signature-too-short": (consent(63), "`signature` of a Consent must be 64 bytes"),
        "signature-too-long": (consent(65), "`signature` of a Consent must be 64 bytes"),
        "signature-without-bytes": (consent(0), "`signature` of a Consent must be 64 bytes"),
        "reply-signature-too-short": (masked_reply(signature=63), "`signature` of a MaskedReply must be 64 bytes"),
        "reply-signature-too-long": (masked_reply(signature=65), "`signature` of a MaskedReply must be 64 bytes"),
        "reply-without-signature": (
            frame(header({**MASKED_FIELDS, "site": "north"}, [["masked", "<u4", 2]]), MASKED_VALUES, kind=9),
            "has an unknown or missing vector for a MaskedReply",
        ),
        "reply-signature-first": (
            frame(
                header({**MASKED_FIELDS, "site": "north"}, [["signature", "|u1", 64], ["masked", "<u4", 2]]),
                counting(64) + MASKED_VALUES,
                kind=9,
            ),
            "does not declare the vector `masked` where it belongs",
        ),
        "survivor-set-without-signatures": (
            of_bytes(10, {**MASKED_FIELDS, "survivors": COHORT[:2]}),
            "has an unknown or missing vector for a SurvivorSet",
        ),
        "masked-order-with-a-hole": (
            frame(
                header({**MASKED_FIELDS, "cohort": COHORT}, ORDER_VECTORS),
                struct.pack("<4f", 0.5, float("nan"), 0.25, 2.0),
                kind=8,
            ),
            "`weights` of a MaskedOrder must be a finite float32 vector",
        ),
        "masked-reply-as-consent": (masked_reply(kind=11), "has an unknown or missing vector for a Consent"),
        "masked-words-as-consent": (
            frame(header({**MASKED_FIELDS, "site": "north"}, [["masked", "<u4", 2]]), bytes(8), kind=11),
            "does not declare the vector `signature` where it belongs",
        ),
        "masked-reply-without-session": (
            frame(header(REPLY_FIELDS, [["masked", "<u4", 2], ["signature", "|u1", 64]]), bytes(72), kind=9),
            "has an unknown or missing field for a MaskedReply",
        ),
        "session-for-no-rounds": (
            of_bytes(4, {**SPAN_FIELDS, "rounds": 0}),
            "`rounds` of a SessionInvite must be a whole number from 1",
        ),
    }


def bad_study():
    labels = "`codes` of a PlanAnswer must be at most 64 different labels in order, each of 1 to 40 small letters, "
    labels += "digits or hyphens"
    whole = "must be a whole number from"
    return {
        "codes-not-sorted": (plan_answer(["too-few-sites", "expired"]), labels),
        "codes-repeated": (plan_answer(["expired", "expired"]), labels),
        "codes-more-than-64": (plan_answer([f"code-{place:02}" for place in range(65)]), labels),
        "codes-with-free-text": (plan_answer(["the patient was not found"]), labels),
        "codes-one-text": (plan_answer("expired"), labels),
        "answer-of-another-state": (
            plan_answer([], "perhaps"),
            "`state` of a PlanAnswer must be accepted, waiting or refused",
        ),
        "offer-without-document": (
            of_bytes(14, PLAN_FIELD, document=0),
            "`document` of a PlanOffer must be 1 to 1048576 bytes",
        ),
        "need-of-a-file-by-name": (base_need(file_number="config.json"), f"`file_number` of a BaseNeed {whole} 0"),
        "chunk-of-no-file": (base_chunk(file_number=0), f"`file_number` of a BaseChunk {whole} 1"),
        "chunk-zero": (base_chunk(chunk_number=0), f"`chunk_number` of a BaseChunk {whole} 1"),
        "chunk-of-no-chunks": (base_chunk(chunks=0), f"`chunks` of a BaseChunk {whole} 1"),
        "run-over-in-other-words": (
            of_bytes(19, {**PLAN_FIELD, "outcome": "well"}),
            "`outcome` of a RunOver must be finished, stopped or failed",
        ),
    }


def as_text(data):
    return data.hex("\n", -16) + "\n"


def files():
    """Name and text of every file of this folder that this script writes."""
    made = {f"good-{name}.hex": as_text(data) for name, data in good().items()}
    index = {"good": [f"good-{name}.hex" for name in good()], "bad": {}}
    for name, (data, fault) in bad().items():
        made[f"bad-{name}.hex"] = as_text(data)
        index["bad"][f"bad-{name}.hex"] = fault
    return {**made, "index.json": json.dumps(index, indent=1) + "\n"}


if __name__ == "__main__":
    for name, text in files().items():
        Path(__file__).with_name(name).write_text(text, encoding="ascii")
