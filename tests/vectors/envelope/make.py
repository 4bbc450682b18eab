"""Writes the envelope vectors: good envelopes, and bad ones with one fault each, named after the fault.

It builds envelopes by hand and does not import `common.envelope`, so that it can disagree with it. Every bad envelope
is signed over what it shows, by the right key, unless that is its fault. The identities are fixed and public: they are
for vectors only. Run it from the repository's root: `python -m tests.vectors.envelope.make`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vectors.wire.make import PLAN, REFUSAL_FIELDS, canonical, counting, frame, header

FEDERATION = "fedcba9876543210" * 4
OTHER = "0f" * 32
ORDER, REFUSAL = frame(), frame(header(REFUSAL_FIELDS, []), b"", kind=3)


def secret(name):
    """The secret half of a party's identity."""
    return hashlib.sha256(f"cloister envelope vectors, {name}".encode()).digest()


def sign(name, text):
    return Ed25519PrivateKey.from_private_bytes(secret(name)).sign(text)


def public(name):
    return Ed25519PrivateKey.from_private_bytes(secret(name)).public_key().public_bytes_raw().hex()


REQUEST = {
    "federation": FEDERATION, "plan_digest": PLAN, "round_number": 3, "sequence": 7, "acknowledged": 0,
    "sender": "coordinator", "sender_key": public("coordinator"), "recipient": "north",
    "recipient_key": public("north"), "answers": "",
}  # fmt: skip


def content(head, body, version=1):
    return {"version": version, "header": head, "body": hashlib.sha256(body).hexdigest()}


def signature(head, body, signer, purpose="envelope"):
    return sign(signer, canonical(["cloister signature", 1, purpose, content(head, body)]))


def name_of(head, body=ORDER):
    return hashlib.sha256(canonical(content({**head, "body_bytes": len(body)}, body))).hexdigest()


def whole(text, body, signed, magic=b"CLSE", version=1, length=None):
    return magic + bytes([version]) + struct.pack("<I", len(text) if length is None else length) + text + body + signed


def envelope(signer="coordinator", body=ORDER, of=None, purpose="envelope", **changes):
    """A request to north, or what `of` and the changes make of it, well signed."""
    head = {"body_bytes": len(body), **(of or REQUEST), **changes}
    return whole(canonical(head), body, signature(head, body, signer, purpose))


REPLY = {
    **REQUEST, "acknowledged": 7, "sender": "north", "sender_key": public("north"), "recipient": "coordinator",
    "recipient_key": public("coordinator"), "answers": name_of(REQUEST),
}  # fmt: skip


def reply(signer="north", **changes):
    return envelope(signer, REFUSAL, REPLY, **changes)


def good():
    return {
        "request": envelope(),
        "reply": reply(),
        "empty-body": envelope(body=b""),
        "longest-header": envelope(
            round_number=2**31 - 1, sequence=2**31 - 1, acknowledged=2**31 - 1, sender="s" * 64, recipient="r" * 64,
            answers=OTHER,
        ),
    }  # fmt: skip


def spelled(text):
    """A good request whose header is spelled as given; the signature is over what it says."""
    return whole(text, ORDER, signature({**REQUEST, "body_bytes": len(ORDER)}, ORDER, "coordinator"))


def without(name):
    head = {key: value for key, value in {**REQUEST, "body_bytes": len(ORDER)}.items() if key != name}
    return whole(canonical(head), ORDER, signature(head, ORDER, "coordinator"))


def unreadable():
    """What has a second spelling or breaks a rule of form, and the rule."""
    return {**of_the_fixed_parts(), **of_the_header(), **of_the_fields()}


def of_the_fixed_parts():
    head = {**REQUEST, "body_bytes": len(ORDER)}
    text, signed = canonical(head), signature(head, ORDER, "coordinator")
    longer, shorter = ORDER + b"\0", ORDER[:-1]
    return {
        "empty": (b"", "is shorter than its fixed parts"),
        "signature-alone": (signed, "is shorter than its fixed parts"),
        "wrong-magic": (whole(text, ORDER, signed, magic=b"CLSR"), "does not start with the magic bytes"),
        "later-version": (whole(text, ORDER, signed, version=2), "is not of version 1"),
        "header-length-beyond-the-end": (
            whole(text, b"", signed, length=len(text) + 1),
            "has a header length that is too large",
        ),
        "header-over-the-limit": (
            whole(text.ljust(1025), ORDER, signed),
            "has a header length that is too large",
        ),
        "trailing-byte": (envelope() + b"\0", "has more or fewer bytes than its header declares"),
        "byte-after-the-body": (
            whole(text, longer, signature(head, longer, "coordinator")),
            "has more or fewer bytes than its header declares",
        ),
        "body-cut-short": (
            whole(text, shorter, signature(head, shorter, "coordinator")),
            "has more or fewer bytes than its header declares",
        ),
        "signature-cut-short": (envelope()[:-1], "has more or fewer bytes than its header declares"),
    }


def of_the_header():
    text = canonical({**REQUEST, "body_bytes": len(ORDER)})
    unsorted = canonical({"sequence": 7})[:-1] + b"," + canonical({**REQUEST, "body_bytes": len(ORDER)})[1:]
    return {
        "header-empty": (spelled(b""), "has a header that is not JSON"),
        "header-not-json": (spelled(text[:-1]), "has a header that is not JSON"),
        "header-not-ascii": (spelled(text.replace(b"north", b"n\xc3\xb6rth")), "has a header that is not JSON"),
        "header-nested-without-end": (spelled(b"[" * 1024), "has a header that is not JSON"),
        "header-with-infinity": (spelled(text.replace(b":7}", b":Infinity}")), "has a header that is not JSON"),
        "header-with-a-space": (spelled(text.replace(b":7}", b": 7}")), "has a header that is not canonical"),
        "header-with-a-line-end": (spelled(text + b"\n"), "has a header that is not canonical"),
        "header-with-an-escape": (
            spelled(text.replace(b"north", b"\\u006eorth")),
            "has a header that is not canonical",
        ),
        "header-with-an-exponent": (spelled(text.replace(b":7}", b":7e0}")), "has a header that is not canonical"),
        "header-repeated-key": (spelled(unsorted), "has a header that is not canonical"),
        "header-keys-unsorted": (
            spelled(text.replace(b'"acknowledged":0,', b"").replace(b"}", b',"acknowledged":0}')),
            "has a header that is not canonical",
        ),
        "header-a-list": (spelled(canonical([text.decode()[:9]])), "has an unknown or missing field"),
        "unknown-field": (envelope(note=""), "has an unknown or missing field"),
        "missing-field": (without("answers"), "has an unknown or missing field"),
    }


def of_the_fields():
    digits = "of an envelope must be 64 hexadecimal digits"
    number, number_or_none = (
        "of an envelope must be a whole number from 1",
        "of an envelope must be a whole number from 0",
    )
    site = "of an envelope must be a site name of 1 to 64 letters, digits, dots, hyphens or underscores"
    return {
        "federation-in-capitals": (envelope(federation=FEDERATION.upper()), f"`federation` {digits}"),
        "federation-none": (envelope(federation=None), f"`federation` {digits}"),
        "plan-digest-too-short": (envelope(plan_digest=PLAN[:-1]), f"`plan_digest` {digits}"),
        "plan-digest-a-list": (envelope(plan_digest=[PLAN]), f"`plan_digest` {digits}"),
        "answers-none": (envelope(answers=None), f"`answers` {digits}, or empty"),
        "answers-too-long": (envelope(answers=OTHER + "0"), f"`answers` {digits}, or empty"),
        "sequence-zero": (envelope(sequence=0), f"`sequence` {number}"),
        "sequence-negative": (envelope(sequence=-7), f"`sequence` {number}"),
        "sequence-a-float": (envelope(sequence=7.0), f"`sequence` {number}"),
        "sequence-a-truth-value": (envelope(sequence=True), f"`sequence` {number}"),
        "sequence-a-text": (envelope(sequence="7"), f"`sequence` {number}"),
        "sequence-too-large": (envelope(sequence=2**31), f"`sequence` {number}"),
        "round-a-float": (envelope(round_number=3.0), f"`round_number` {number_or_none}"),
        "round-negative": (envelope(round_number=-1), f"`round_number` {number_or_none}"),
        "acknowledged-a-truth-value": (envelope(acknowledged=False), f"`acknowledged` {number_or_none}"),
        "body-length-a-float": (envelope(body_bytes=float(len(ORDER))), f"`body_bytes` {number_or_none}"),
        "body-length-negative": (envelope(body_bytes=-1), f"`body_bytes` {number_or_none}"),
        "sender-empty": (envelope(sender=""), f"`sender` {site}"),
        "sender-a-list": (envelope(sender=["coordinator"]), f"`sender` {site}"),
        "sender-key-a-list": (envelope(sender_key=[public("coordinator")]), f"`sender_key` {digits}"),
        "recipient-key-too-short": (envelope(recipient_key=public("north")[:-1]), f"`recipient_key` {digits}"),
        "recipient-key-empty": (envelope(recipient_key=""), f"`recipient_key` {digits}"),
        "recipient-with-a-slash": (envelope(recipient="../north"), f"`recipient` {site}"),
    }


def unsigned():
    """What the coordinator `coordinator` did not sign, as it stands."""
    head, swapped = {**REQUEST, "body_bytes": len(ORDER)}, ORDER[:-1] + b"x"
    text, signed = canonical(head), signature(head, ORDER, "coordinator")
    later = sign("coordinator", canonical(["cloister signature", 1, "envelope", content(head, ORDER, version=2)]))
    made = {
        "signed-by-another-coordinator": envelope("another coordinator"),
        "signed-by-the-site-itself": envelope("north"),
        "signed-for-another-purpose": envelope(purpose="plan"),
        "signed-for-a-later-version": whole(text, ORDER, later),
        "signed-over-the-body-alone": whole(text, ORDER, sign("coordinator", ORDER)),
        "signature-of-zeros": whole(text, ORDER, bytes(64)),
        "signature-counting": whole(text, ORDER, counting(64)),
        "signature-of-another-envelope": whole(text, ORDER, envelope(sequence=8)[-64:]),
        "swapped-body": whole(text, swapped, signed),
        "sequence-raised": whole(canonical({**head, "sequence": 8}), ORDER, signed),
        "recipient-changed": whole(canonical({**head, "recipient": "south"}), ORDER, signed),
        "plan-changed": whole(canonical({**head, "plan_digest": OTHER}), ORDER, signed),
    }
    return {name: (data, "is not signed by the key that is expected") for name, data in made.items()}


def refused():
    """What the coordinator signed, and north refuses after it answered the good request 7; with the code."""
    return {
        "request-to-another-site": (envelope(recipient="south"), "misaddressed"),
        "request-to-an-identity-before": (envelope(recipient_key=public("north before")), "misaddressed"),
        "request-of-another-key": (envelope(sender_key=public("another coordinator")), "misaddressed"),
        "request-of-another-federation": (envelope(federation=OTHER), "misaddressed"),
        "request-in-a-sites-name": (envelope(sender="south"), "misaddressed"),
        "request-that-is-an-answer": (envelope(answers=OTHER), "misaddressed"),
        "sequence-too-far": (envelope(sequence=7 + 2**20 + 1), "far-sequence"),
        "largest-sequence": (envelope(sequence=2**31 - 1), "far-sequence"),
        "older-sequence": (envelope(sequence=6), "past-sequence"),
        "other-body-with-the-last-sequence": (envelope(body=ORDER[:-1] + b"x"), "past-sequence"),
        "other-plan-with-the-last-sequence": (envelope(plan_digest=OTHER), "past-sequence"),
        "acknowledges-what-was-never-answered": (envelope(sequence=9, acknowledged=8), "rolled-back"),
    }


def dropped():
    """What comes as north's answer to the good request 7, and the coordinator drops; with the kind."""
    return {
        "answer-that-is-no-envelope": (REFUSAL, "unreadable"),
        "answer-of-another-site": (reply("south", sender="south"), "bad-signature"),
        "answer-signed-by-another-site": (reply("south"), "bad-signature"),
        "answer-that-is-the-request": (envelope(), "bad-signature"),
        "answer-in-another-federation": (reply(federation=OTHER), "other-federation"),
        "answer-in-another-sites-name": (reply(sender="south"), "wrong-sender"),
        "answer-of-another-key": (reply(sender_key=public("north before")), "wrong-sender"),
        "answer-to-another-key": (reply(recipient_key=public("another coordinator")), "wrong-recipient"),
        "answer-to-another-site": (reply(recipient="south"), "wrong-recipient"),
        "answer-with-another-sequence": (reply(sequence=6, acknowledged=6), "other-sequence"),
        "answer-to-another-request": (reply(answers=name_of({**REQUEST, "round_number": 2})), "other-request"),
        "answer-to-no-request": (reply(answers=""), "other-request"),
        "answer-of-another-plan": (reply(plan_digest=OTHER), "other-plan"),
        "answer-of-another-round": (reply(round_number=2), "other-round"),
    }


def as_text(data):
    return data.hex("\n", -16) + "\n"


def files():
    """Name and text of every file of this folder that this script writes."""
    kinds = {"unreadable": unreadable(), "unsigned": unsigned(), "refused": refused(), "dropped": dropped()}
    made = {f"good-{name}.hex": as_text(data) for name, data in good().items()}
    index = {"identities": {name: public(name) for name in ("coordinator", "north", "south")}, "good": list(made)}
    for kind, vectors in kinds.items():
        made |= {f"bad-{name}.hex": as_text(data) for name, (data, _) in vectors.items()}
        index[kind] = {f"bad-{name}.hex": fault for name, (_, fault) in vectors.items()}
    return {**made, "index.json": json.dumps(index, indent=1) + "\n"}


if __name__ == "__main__":
    for file_name, text in files().items():
        Path(__file__).with_name(file_name).write_text(text, encoding="ascii")
