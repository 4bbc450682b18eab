"""What a network saw and which records were touched, compared with the ledgers on the disks, which plain SQL reads."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from client.home import SiteHome
from common.envelope import open_envelope
from common.messages import Refusal
from common.secagg.messages import Consent, MaskedReply, Reveal, RevealRequest, SurvivorSet
from common.wire import decode, kind_of
from tests.kills import SITES

ROUNDS = 2
FRESH = 0
"""The coordinate that stands for noise."""


class Watch:
    """Over all lives; the promise is checked at the very moments: before a record is touched, when an answer leaves."""

    comparing = True
    """Unset where a ledger on a disk was put back, and says nothing any more."""

    def __init__(self, homes: Mapping[str, SiteHome], plan: str) -> None:
        self.homes, self.plan = homes, plan
        self.touched: Counter[tuple[str, int]] = Counter()
        self.vectors: dict[tuple[str, int], set[bytes]] = defaultdict(set)
        self.sets: dict[tuple[str, int], set[tuple[str, ...]]] = defaultdict(set)
        self.answers: dict[str, set[bytes]] = defaultdict(set)
        self.survivors: dict[int, tuple[str, ...]] = {}
        self.codes: Counter[str] = Counter()
        self.conversation: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)

    def charged(self, site: str) -> list[int]:
        """Rounds that the ledger on disk says are paid for, in order."""
        with sqlite3.connect(f"{self.homes[site].ledger.as_uri()}?mode=ro", uri=True) as connection:
            found = connection.execute("SELECT content FROM entries WHERE kind = 'commit' ORDER BY sequence").fetchall()
        connection.close()
        entries = [json.loads(content) for (content,) in found]
        return [entry["round_number"] for entry in entries if entry["plan_digest"] == self.plan]

    def reserved(self, site: str) -> list[int]:
        """Steps of every reservation of the plan."""
        with sqlite3.connect(f"{self.homes[site].ledger.as_uri()}?mode=ro", uri=True) as connection:
            found = connection.execute("SELECT content FROM entries WHERE kind = 'reserve'").fetchall()
        connection.close()
        entries = [json.loads(content) for (content,) in found]
        return [entry["mechanism"]["steps"] for entry in entries if entry["plan_digest"] == self.plan]

    def touch(self, site: str, round_number: int) -> int:
        """Records of a site are touched for a round; gives how often they were."""
        self.touched[site, round_number] += 1
        assert self.reserved(site) == [ROUNDS], "records were touched before the plan's cost was set aside"
        assert round_number in self.charged(site), "records were touched before the ledger had the round"
        return self.touched[site, round_number]

    def noised_bytes(self, site: str) -> set[bytes]:
        """All that has left a site and hangs on its records."""
        return {vector for (name, _), vectors in self.vectors.items() if name == site for vector in vectors}

    def see(self, site: str, request: bytes, answer: bytes) -> None:
        """An answer has left a site."""
        asked, said = body_of(request), body_of(answer)
        self.conversation[site].append((request, answer))
        self.answers[hashlib.sha256(request).hexdigest()].add(answer)
        kind = kind_of(said)
        if kind is Refusal:
            self.codes[decode(said, Refusal).code] += 1
        elif kind is MaskedReply:
            reply = decode(said, MaskedReply)
            self.vectors[site, reply.round_number].add(reply.masked.tobytes())
        elif kind in {Consent, Reveal}:
            about = decode(asked, SurvivorSet, RevealRequest)
            self.sets[site, about.round_number].add(about.survivors)
            self.survivors[about.round_number] = about.survivors
        self.check(site)

    def check(self, site: str) -> None:
        """Recorded ε ≥ true ε: ε grows with the steps, so steps are compared; and nothing is said in two ways."""
        if not self.comparing:
            return
        charged = self.charged(site)
        fresh = {number: vectors for (name, number), vectors in self.vectors.items() if name == site}
        answered = sum(map(len, fresh.values()))
        assert answered <= len(charged) <= ROUNDS, f"{answered} fresh answers left for {charged}"
        assert charged == sorted(set(charged)), f"a round was charged twice: {charged}"
        assert self.reserved(site) in ([], [ROUNDS]), "a plan was set aside twice"
        assert set(fresh) <= set(charged), "an answer left for a round that was not charged"
        assert all(len(vectors) == 1 for vectors in fresh.values()), "one round was answered in two ways"
        assert all(len(sets) == 1 for (name, _), sets in self.sets.items() if name == site), "two survivor sets"

    def check_audit(self, site: str) -> None:
        """What the ledger was charged with stands in the audit log, once, whoever was killed when."""
        lines = [json.loads(line) for line in self.homes[site].audit.read_bytes().splitlines()]
        told = [line["fields"] for line in lines if line["kind"] in {"reserved", "round-charged"}]
        rounds = [event.get("round_number", 0) for event in told if event["plan"] == self.plan]
        assert rounds == [0, *self.charged(site)], f"the audit log tells of rounds {rounds}"

    def check_repeats(self) -> None:
        """The same request got the identical bytes, whenever it came."""
        assert all(len(answers) == 1 for answers in self.answers.values()), "one request, two answers"


def body_of(sealed: bytes) -> bytes:
    """What an envelope is around."""
    return bytes(open_envelope(sealed, len(sealed)).body)


class FormulaTrainer:
    """What stands in for training: one fresh coordinate, and the rest a function of site, round and model."""

    def __init__(self, site: str, dimension: int, watch: Watch) -> None:
        self._site, self._dimension, self._watch = site, dimension, watch

    def train(self, order) -> np.ndarray:
        """As `client.node.Trainer`."""
        times = self._watch.touch(self._site, order.round_number)
        model = sum(np.delete(order.weights, FRESH).tobytes()) % 31
        share = (1 + np.arange(self._dimension) % 7) * (1 + SITES.index(self._site)) * (order.round_number + model)
        share[FRESH] = 1000 * times
        return share.astype(np.int64)
