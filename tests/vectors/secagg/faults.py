"""Requests to the site `east`, each with one fault, by a coordinator that knows or forges all but one thing.

A vector says what the site has been through before (names of good frames), the request, and what must come of it: the
refusal in bytes, the error behind it with its exit code, and how many rounds are charged afterwards.
"""

from __future__ import annotations

from tests.vectors.secagg.play import NAMES, SURVIVORS, Play, message
from tests.vectors.wire.make import frame, header, sealed

SITE = "east"
INVITED = ["invite"]
AGREED = [*INVITED, "roster"]
ANSWERED = [*AGREED, "order"]
CONSENTED = [*ANSWERED, "survivor-set"]
REVEALED = [*CONSENTED, f"reveal-request-{SITE}"]
MOVED_ON = [*REVEALED, "order-2"]
EXIT_CODES = {"IntegrityError": 13, "UnsafeRequestError": 13, "TooFewSitesAgreeError": 15, "RefusedError": 10}
PLAY = Play()
OTHERS = [name for name in NAMES if name != SITE]
OTHER_SET = ["east", "north", "west"]
STRANGER = "zoe"


def refusal(code, round_number):
    fields = {"plan_digest": PLAY.plan, "round_number": round_number, "site": SITE, "code": code}
    return frame(header(fields, []), b"", kind=3)


def vector(fault, after, request, code, error, round_number=0):
    """`round_number` is what the refusal is about: 0 where the request names none, or could not be read."""
    charged = sum(name.startswith("order") for name in after)
    return {
        "fault": fault,
        "to": SITE,
        "after": after,
        "request": request.hex(),
        "answer": refusal(code, round_number).hex(),
        "code": code,
        "error": error,
        "exit_code": EXIT_CODES[error],
        "rounds_charged": charged,
    }


def bad():
    """Every vector by the name of its fault."""
    return {
        **of_sessions(),
        **of_rosters(),
        **of_orders(),
        **of_survivors(),
        **of_replies(),
        **of_consents(),
        **of_shares(),
        **of_bytes(),
    }


def of_sessions():
    def unsafe(fault, after, **changes):
        return vector(fault, after, PLAY.invite(**changes), "other-session", "UnsafeRequestError")

    return {
        "session-with-other-rounds": unsafe("the running session's id, for one round", INVITED, rounds=1),
        "session-of-a-past-round": unsafe("a new session for the round just answered", ANSWERED, session="a5" * 32),
        "session-beyond-the-plan": unsafe(
            "a session whose first round the plan has not", INVITED, session="a5" * 32, first_round=3
        ),
        "session-too-long": unsafe("more rounds than the plan gives a session", [], session="a5" * 32, rounds=3),
    }


def of_rosters():
    parts = PLAY.parts()
    own, north, south = (parts[name] for name in ("east", "north", "south"))
    keys = Play(label=" of the coordinator").keys("north")
    with_stranger = keys, PLAY.key_signature(STRANGER, keys)
    stranger_as_north = keys, PLAY.key_signature("north", keys, STRANGER)
    altered = {
        "wrong-signature": ("one bit of north's signature is turned", {"north": (north[0], flipped(north[1], 0))}),
        "key-of-somebody-outside-the-roster": ("a site that the plan does not name", {STRANGER: with_stranger}),
        "key-of-the-coordinator": (
            "north's keys are replaced, signed by another identity",
            {"north": stranger_as_north},
        ),
        "swapped-keys": (
            "north's keys under south's name, and south's under north's",
            {"north": south, "south": north},
        ),
        "repeated-key": ("north signs south's keys as its own", {"north": by("north", south[0])}),
        "repeated-key-at-another-place": (
            "north's channel key is its mask key",
            {"north": by("north", north[0][32:64] + north[0][32:])},
        ),
        "key-of-low-order": (
            "north's mask key gives everybody the same secret",
            {"north": by("north", north[0][:32] + bytes(32) + north[0][64:])},
        ),
        "key-spelled-otherwise": (
            "north's channel key with the bit that nobody reads",
            {"north": by("north", flipped(north[0], 31, 128))},
        ),
        "keys-of-another-session": (
            "north's keys are signed for another session",
            {"north": Play(session="a5" * 32).parts()["north"]},
        ),
        "own-keys-replaced": (
            "other keys of this site, as from a session before",
            {"east": Play(label=" before").parts()["east"]},
        ),
        "keys-one-byte-short": (
            "the last byte of all keys is missing",
            {"west": (parts["west"][0][:-1], parts["west"][1])},
        ),
    }
    made = {name: roster_of(fault, parts | change) for name, (fault, change) in altered.items()}
    without_self = {name: part for name, part in parts.items() if name != SITE}
    without_west = {name: part for name, part in parts.items() if name != "west"}
    made["own-keys-left-out"] = roster_of("a roster of the other three sites", without_self)
    made["roster-changed"] = roster_of("a second roster in a session, good in itself", without_west, AGREED)
    made["roster-below-threshold"] = vector(
        "a roster of two sites",
        INVITED,
        PLAY.roster({SITE: own, "north": north}),
        "bad-cohort",
        "TooFewSitesAgreeError",
    )
    made["roster-of-another-session"] = vector(
        "a good roster of a session that was not begun",
        INVITED,
        Play(session="a5" * 32).roster(),
        "other-session",
        "UnsafeRequestError",
    )
    return made


def roster_of(fault, parts, after=INVITED):
    return vector(fault, after, PLAY.roster(parts), "bad-keys", "UnsafeRequestError")


def by(name, keys):
    """Keys with that site's good signature: it colludes."""
    return keys, PLAY.key_signature(name, keys)


def flipped(data, place, bit=1):
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def of_orders():
    few, unsafe = ("bad-cohort", "TooFewSitesAgreeError", 1), ("bad-cohort", "UnsafeRequestError", 1)
    refused = ("conflicting-order", "RefusedError", 1)
    other_session = ("other-session", "UnsafeRequestError", 1)
    past = ("unexpected-round", "RefusedError")
    other_model = Play(weights=(0.5, -1.0, 0.5)).order()
    return {
        "cohort-of-one": vector("a cohort of this site alone", AGREED, cohort(SITE), *few),
        "cohort-below-threshold": vector(
            "a cohort of two, where the threshold is three", AGREED, cohort("east", "north"), *few
        ),
        "cohort-outside-the-session": vector(
            "a cohort with a site of no keys", AGREED, cohort(*SURVIVORS, STRANGER), *unsafe
        ),
        "cohort-without-this-site": vector("a cohort of the three others", AGREED, cohort(*OTHERS), *unsafe),
        "order-before-the-roster": vector("an order before keys were agreed on", INVITED, PLAY.order(), *other_session),
        "order-of-another-session": vector(
            "an order of another session", AGREED, Play(session="a5" * 32).order(), *other_session
        ),
        "model-that-differs": vector("a second order of a round, with another model", ANSWERED, other_model, *refused),
        "cohort-that-differs": vector(
            "a second order of a round, with another cohort", ANSWERED, cohort(*SURVIVORS), *refused
        ),
        "replayed-round": vector("the first round's order, after the second's", MOVED_ON, PLAY.order(), *past, 1),
        "round-beyond-the-plan": vector("a third round, where the plan has two", AGREED, PLAY.order(3), *past, 3),
    }


def cohort(*names):
    return Play(cohort=names).order()


def of_survivors():
    few, unsafe = ("bad-cohort", "TooFewSitesAgreeError", 1), ("bad-cohort", "UnsafeRequestError", 1)
    other = ("conflicting-survivors", "RefusedError", 1)
    not_now = ("unexpected-round", "RefusedError", 1)
    both = PLAY.request(SITE, OTHER_SET, consents={name: PLAY.consent(name, OTHER_SET) for name in NAMES})
    return {
        "survivors-of-one": vector("this site as the only survivor", ANSWERED, PLAY.survivor_set([SITE]), *few),
        "survivors-below-threshold": vector(
            "two survivors, where the threshold is three", ANSWERED, PLAY.survivor_set(SURVIVORS[:2]), *few
        ),
        "survivors-outside-the-cohort": vector(
            "a survivor that was not in the round", ANSWERED, PLAY.survivor_set([*SURVIVORS, STRANGER]), *unsafe
        ),
        "survivors-of-another-session": vector(
            "the survivors of another session's round",
            ANSWERED,
            Play(session="a5" * 32).survivor_set(),
            "other-session",
            "UnsafeRequestError",
            1,
        ),
        "survivors-before-the-reply": vector(
            "survivors of a round that this site has not answered", AGREED, PLAY.survivor_set(), *not_now
        ),
        "survivors-of-a-past-round": vector(
            "survivors of the first round, after the second's order", MOVED_ON, PLAY.survivor_set(), *not_now
        ),
        "survivor-set-that-differs": vector(
            "another survivor set after this site signed one", CONSENTED, PLAY.survivor_set(OTHER_SET), *other
        ),
        "reveal-for-a-set-not-signed": vector(
            "a reveal for another set than the one signed here, with all consents", CONSENTED, both, *other
        ),
        "double-reveal": vector(
            "a second reveal: south's mask key after its self mask, with all consents", REVEALED, both, *other
        ),
        "reveal-of-a-past-round": vector(
            "a reveal of the first round, after the second's order", MOVED_ON, PLAY.request(SITE), *not_now
        ),
    }


def of_replies():
    """Survivors whose replies are for another context than the one that this site knows, or for none."""
    good = {name: PLAY.reply_signature(name) for name in SURVIVORS}
    cut = good["south"][:-1]
    made = {
        "reply-for-another-cohort": (
            "south masked for a cohort without west",
            {"south": Play(cohort=SURVIVORS).reply_signature("south")},
        ),
        "reply-for-another-model": (
            "south masked for another model",
            {"south": Play(weights=(0.5, -1.0, 0.5)).reply_signature("south")},
        ),
        "reply-for-another-round": ("south masked for round 2", {"south": PLAY.reply_signature("south", 2)}),
        "reply-for-another-session": (
            "south masked in another session",
            {"south": Play(session="a5" * 32).reply_signature("south")},
        ),
        "reply-for-another-roster": (
            "south masked under a roster of other keys",
            {"south": Play(label=" before").reply_signature("south")},
        ),
        "reply-for-another-purpose": (
            "south signed the same context as something else",
            {"south": PLAY.reply_signature("south", purpose="consent to survivors")},
        ),
        "reply-of-another-site": ("north's signature under south's name too", {"south": good["north"]}),
        "forged-reply": ("south's signature is 64 zeros", {"south": bytes(64)}),
        "reply-signatures-one-byte-short": ("the last byte of all signatures is missing", {"south": cut}),
        "reply-signature-left-out": ("no signature of south", {"south": b""}),
        "reply-signature-too-many": ("south's signature twice", {"south": good["south"] * 2}),
        "survivor-that-never-replied": (
            "west is named too, with its consent to this very set",
            {"west": PLAY.consent("west", NAMES)},
        ),
    }
    return {name: other_context(fault, good | change) for name, (fault, change) in made.items()}


def other_context(fault, signatures):
    request = PLAY.survivor_set(list(signatures), signatures=signatures)
    return vector(fault, ANSWERED, request, "other-context", "UnsafeRequestError", 1)


def of_consents():
    good = {name: PLAY.consent(name) for name in SURVIVORS}
    two = {name: good[name] for name in ("east", "north")}
    stranger = Play().consent(STRANGER)
    other_model = Play(weights=(0.5, -1.0, 0.5)).consent("south")
    made = {
        "threshold-lowered": ("two consents, where the threshold is three", two),
        "one-consent": ("this site's own consent alone", {"east": good["east"]}),
        "forged-consent": ("south's consent is 64 zeros", two | {"south": bytes(64)}),
        "consent-counted-twice": ("north's consent under south's name too", two | {"south": good["north"]}),
        "consent-of-a-stranger": ("a third consent by somebody outside the roster", two | {STRANGER: stranger}),
        "consent-for-another-model": ("south agreed on the same set for another model", two | {"south": other_model}),
        "consent-for-another-cohort": (
            "south agreed for another cohort",
            two | {"south": Play(cohort=SURVIVORS).consent("south")},
        ),
        "consent-for-another-set": ("south agreed on another set", two | {"south": PLAY.consent("south", NAMES)}),
        "consent-for-another-round": (
            "south agreed on the same set in round 2",
            two | {"south": PLAY.consent("south", number=2)},
        ),
        "consent-for-another-session": (
            "south agreed in another session",
            two | {"south": Play(session="a5" * 32).consent("south")},
        ),
        "consent-for-another-purpose": (
            "south signed it as something else",
            two | {"south": PLAY.consent("south", purpose="session keys")},
        ),
    }
    return {
        name: vector(
            fault, CONSENTED, PLAY.request(SITE, consents=consents), "too-few-consents", "TooFewSitesAgreeError", 1
        )
        for name, (fault, consents) in made.items()
    }


def of_shares():
    good = {name: PLAY.sealed(name, SITE, 1) for name in OTHERS}
    made = {
        "tampered-ciphertext": ("one bit of what north dealt is turned", good | {"north": flipped(good["north"], 5)}),
        "tampered-tag": ("one bit of the tag is turned", good | {"north": flipped(good["north"], 81)}),
        "share-for-another-recipient": ("north's share for south", good | {"north": PLAY.sealed("north", "south", 1)}),
        "share-from-another-round": ("north's share of round 2", good | {"north": PLAY.sealed("north", SITE, 2)}),
        "share-of-another-dealer": ("south's share under north's name", good | {"north": good["south"]}),
        "share-from-another-session": (
            "north's share of another session",
            good | {"north": Play(session="a5" * 32).sealed("north", SITE, 1)},
        ),
        "share-under-another-roster": (
            "north's share under a roster of other keys",
            good | {"north": Play(label=" before").sealed("north", SITE, 1)},
        ),
        "share-left-out": ("nothing of west", {name: good[name] for name in ("north", "south")}),
        "share-too-many": ("a share that this site dealt itself", {SITE: PLAY.sealed(SITE, "north", 1), **good}),
        "share-with-one-more-byte": ("a byte after the last sealed share", good | {"west": good["west"] + b"\0"}),
    }
    return {
        name: vector(fault, CONSENTED, PLAY.request(SITE, sealed=shares), "bad-share", "UnsafeRequestError", 1)
        for name, (fault, shares) in made.items()
    }


def of_bytes():
    def malformed(fault, after, request):
        return vector(fault, after, request, "malformed", "IntegrityError")

    order, fields = PLAY.order(), PLAY.in_round(cohort=NAMES)
    twice = PLAY.in_round(survivors=SURVIVORS, signers=["east", "north", "north"], dealers=OTHERS)
    return {
        "trailing-bytes": malformed(
            "four zeros after the model, under a fitting checksum", AGREED, sealed(order[:-32] + bytes(4))
        ),
        "trailing-bytes-after-the-checksum": malformed("a byte after the checksum", AGREED, order + b"\0"),
        "message-of-a-site": malformed("a reply instead of an order", AGREED, PLAY.frames()["reply-north"]),
        "model-with-a-hole": malformed(
            "a model with NaN",
            AGREED,
            message("order", fields, weights=("<f4", [0.5, float("nan"), 0.25]), basis=("<f4", [])),
        ),
        "signer-named-twice": malformed(
            "north's consent twice under its own name",
            CONSENTED,
            message(
                "request", twice, signatures=bytes(192), sealed=b"".join(PLAY.sealed(name, SITE, 1) for name in OTHERS)
            ),
        ),
        "dealer-named-twice": malformed("north's share twice, in place of south's", CONSENTED, doubled_dealer()),
    }


def doubled_dealer():
    consents = [PLAY.consent(name) for name in SURVIVORS]
    fields = PLAY.in_round(survivors=SURVIVORS, signers=SURVIVORS, dealers=["north", "north", "west"])
    shares = [PLAY.sealed(name, SITE, 1) for name in fields["dealers"]]
    return message("request", fields, signatures=b"".join(consents), sealed=b"".join(shares))
