"""A round of secure aggregation from fixed secrets, written a second time, on one page, by the protocol's formulas."""

from __future__ import annotations

import hashlib
import hmac
import struct
from itertools import combinations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.vectors.wire.make import canonical, frame, header

PLAN = "0123456789abcdef" * 4
SESSION = "5e" * 32
NAMES = ["east", "north", "south", "west"]
COHORT, SURVIVORS = NAMES, NAMES[:3]
PARAMETERS = {"sites": 4, "tolerated_dropouts": 1, "tolerated_colluders": 1, "threshold": 3}
THRESHOLD = PARAMETERS["threshold"]
ROUNDS = 2
PRIME = 2**256 + 297
KINDS = {"invite": 4, "keys": 5, "roster": 6, "shares": 7, "order": 8, "reply": 9, "survivors": 10, "consent": 11}
KINDS |= {"request": 12, "reveal": 13}


def sha(data):
    return hashlib.sha256(data).digest()


def derive(secret, *labels):
    """HKDF-SHA256 without salt, one block (RFC 5869)."""
    key = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(key, canonical(["cloister secure aggregation", 1, *labels]) + b"\1", "sha256")


def public(key):
    return X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def agree(key, other, *labels):
    shared = X25519PrivateKey.from_private_bytes(key).exchange(X25519PublicKey.from_public_bytes(other))
    return derive(shared, *labels)


def sign(identity_secret, purpose, content):
    signed = canonical(["cloister signature", 1, purpose, content])
    return Ed25519PrivateKey.from_private_bytes(identity_secret).sign(signed)


def keystream(seed, count):
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(4 * count))
    return struct.unpack(f"<{count}I", stream)


def message(kind, fields, **vectors):
    """A frame; a vector is bytes, or a type and numbers."""
    forms = {"<f4": "f", "<u4": "I"}
    declared, values = [], b""
    for name, vector in vectors.items():
        dtype, numbers = vector if isinstance(vector, tuple) else ("|u1", vector)
        declared.append([name, dtype, len(numbers)])
        values += numbers if dtype == "|u1" else struct.pack(f"<{len(numbers)}{forms[dtype]}", *numbers)
    return frame(header(fields, declared), values, KINDS[kind])


class Play:
    """The four sites. What a fault changes is an attribute or an argument; the rest follows."""

    def __init__(self, session=SESSION, label="", weights=(0.5, -1.0, 0.25), cohort=COHORT):
        self.plan, self.session, self.label = PLAN, session, label
        self.weights, self.cohort = list(weights), list(cohort)
        self.inputs = {name: [10 * place, -20 * place, 30 * place] for place, name in enumerate(NAMES, start=1)}

    # --- keys ---

    def identity_secret(self, name):
        return sha(f"vector identity {name}".encode())

    def identity(self, name):
        return Ed25519PrivateKey.from_private_bytes(self.identity_secret(name)).public_key().public_bytes_raw().hex()

    def secret(self, name):
        return sha(f"vector secret {name}{self.label}".encode())

    def channel_key(self, name):
        return derive(self.secret(name), self.session, "channel key")

    def mask_key(self, name, number):
        return derive(self.secret(name), self.session, "mask key", number)

    def self_seed(self, name, number):
        return derive(self.secret(name), self.session, "self seed", number)

    def keys(self, name):
        parts = [public(self.channel_key(name))]
        for number in range(1, ROUNDS + 1):
            parts += [
                public(self.mask_key(name, number)),
                sha(b"cloister self-mask seed 1" + self.self_seed(name, number)),
            ]
        return b"".join(parts)

    def key_signature(self, name, keys, signer=None):
        content = [self.plan, self.session, 1, ROUNDS, name, keys.hex()]
        return sign(self.identity_secret(signer or name), "session keys", content)

    def roster_digest(self):
        keys = b"".join(self.keys(name) for name in NAMES)
        return sha(
            canonical(["cloister session roster", 1, self.plan, self.session, 1, ROUNDS, NAMES, keys.hex()])
        ).hex()

    # --- shares ---

    def share(self, dealer, kind, number, holder):
        """The value at the holder's point of a polynomial of degree t - 1 that is the secret at 0."""
        secret = self.mask_key(dealer, number) if kind == "mask key" else self.self_seed(dealer, number)
        places = range(1, THRESHOLD)
        drawn = [derive(self.secret(dealer), self.session, "coefficient", kind, number, place) for place in places]
        numbers = [int.from_bytes(value, "big") for value in (secret, *drawn)]
        point = NAMES.index(holder) + 1
        return (sum(value * point**power for power, value in enumerate(numbers)) % PRIME).to_bytes(33, "big")

    def pair(self, dealer, holder, number):
        return {kind: self.share(dealer, kind, number, holder) for kind in ("mask key", "self seed")}

    def sealed(self, dealer, holder, number):
        other = public(self.channel_key(holder))
        key = agree(self.channel_key(dealer), other, "shares", dealer, holder, self.roster_digest())
        plain = b"".join(self.pair(dealer, holder, number).values())
        return ChaCha20Poly1305(key).encrypt(number.to_bytes(12, "big"), plain, None)

    # --- masks ---

    def model(self):
        packed = struct.pack(f"<{len(self.weights)}f", *self.weights)
        return sha(f"{len(self.weights)} 0 ".encode() + packed).hex()

    def context(self, number=1):
        parts = [self.roster_digest(), self.cohort, number, self.model()]
        return sha(canonical(["cloister secure aggregation round", 1, *parts])).hex()

    def pairs(self):
        return list(combinations(NAMES, 2))

    def pair_seed(self, one, two, number=1):
        other = public(self.mask_key(two, number))
        return agree(self.mask_key(one, number), other, "pairwise mask", *sorted([one, two]), self.context(number))

    def own_seed(self, name, number=1):
        return derive(self.self_seed(name, number), "self mask", name, self.context(number))

    def masked(self, name, number=1):
        total = [
            value + own for value, own in zip(self.inputs[name], keystream(self.own_seed(name, number), 3), strict=True)
        ]
        for peer in self.cohort:
            if peer != name:
                mask = keystream(self.pair_seed(name, peer, number), 3)
                total = [value + (word if name < peer else -word) for value, word in zip(total, mask, strict=True)]
        return [value % 2**32 for value in total]

    def total(self):
        return [sum(column) for column in zip(*(self.inputs[name] for name in SURVIVORS), strict=True)]

    def reply_signature(self, name, number=1, purpose="masked reply"):
        return sign(self.identity_secret(name), purpose, [self.context(number)])

    def consent(self, name, survivors=SURVIVORS, number=1, purpose="consent to survivors"):
        return sign(self.identity_secret(name), purpose, [self.context(number), list(survivors)])

    # --- messages ---

    @property
    def in_session(self):
        return {"plan_digest": self.plan, "session": self.session}

    def span(self, **changes):
        return {**self.in_session, "first_round": 1, "rounds": ROUNDS, **changes}

    def in_round(self, number=1, **more):
        return {**self.in_session, "round_number": number, **more}

    def invite(self, **changes):
        return message("invite", self.span(**changes))

    def parts(self, names=NAMES):
        return {name: (self.keys(name), self.key_signature(name, self.keys(name))) for name in names}

    def roster(self, parts=None):
        parts = dict(sorted((parts or self.parts()).items()))
        keys, signatures = (b"".join(part[place] for part in parts.values()) for place in (0, 1))
        return message("roster", self.span(sites=list(parts)), keys=keys, signatures=signatures)

    def order(self, number=1):
        weights = ("<f4", self.weights)
        return message("order", self.in_round(number, cohort=self.cohort), weights=weights, basis=("<f4", []))

    def survivor_set(self, survivors=SURVIVORS, number=1, signatures=None):
        """Signatures by name; the good ones where they are not given."""
        signatures = signatures or {name: self.reply_signature(name, number) for name in survivors}
        fields = self.in_round(number, survivors=list(survivors))
        return message("survivors", fields, signatures=b"".join(signatures.values()))

    def request(self, to, survivors=SURVIVORS, number=1, consents=None, sealed=None):
        """Consents and sealed shares by name; the good ones where they are not given."""
        consents = consents or {name: self.consent(name, survivors, number) for name in SURVIVORS}
        sealed = sealed or {name: self.sealed(name, to, number) for name in NAMES if name != to}
        fields = self.in_round(number, survivors=list(survivors), signers=list(consents), dealers=list(sealed))
        return message("request", fields, signatures=b"".join(consents.values()), sealed=b"".join(sealed.values()))

    def reveal(self, name):
        kinds = {owner: "self seed" if owner in SURVIVORS else "mask key" for owner in NAMES}
        shares = b"".join(self.share(owner, kind, 1, name) for owner, kind in kinds.items())
        return message("reveal", self.in_round(site=name, owners=NAMES), shares=shares)

    def frames(self):
        """Every message of the round, in order, and the next round's order; `west` falls silent before it replies."""
        made = {"invite": self.invite()}
        for name, (keys, signature) in self.parts().items():
            made[f"keys-{name}"] = message("keys", self.span(site=name), keys=keys, signature=signature)
        made["roster"] = self.roster()
        for name in NAMES:
            peers = [peer for peer in NAMES if peer != name]
            dealt = b"".join(self.sealed(name, peer, number) for peer in peers for number in range(1, ROUNDS + 1))
            made[f"shares-{name}"] = message(
                "shares", {**self.in_session, "site": name, "recipients": peers}, sealed=dealt
            )
        made["order"] = self.order()
        for name in SURVIVORS:
            masked, signature = ("<u4", self.masked(name)), self.reply_signature(name)
            made[f"reply-{name}"] = message("reply", self.in_round(site=name), masked=masked, signature=signature)
        made["survivor-set"] = self.survivor_set()
        for name in SURVIVORS:
            made[f"consent-{name}"] = message("consent", self.in_round(site=name), signature=self.consent(name))
        for name in SURVIVORS:
            made[f"reveal-request-{name}"] = self.request(name)
        for name in SURVIVORS:
            made[f"reveal-{name}"] = self.reveal(name)
        made["order-2"] = self.order(2)
        return made
