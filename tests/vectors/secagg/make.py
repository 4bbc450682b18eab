"""Writes the vectors of secure aggregation: one good round in full, and requests to a site with one fault each.

It computes every key, share, mask and signature by the formulas of docs/protocol.md, with the standards' primitives and
without importing the packages, so that it can disagree with them. The identities and secrets are fixed and public: they
are for vectors only. Run it from the repository's root: `python -m tests.vectors.secagg.make`.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.vectors.secagg.faults import bad
from tests.vectors.secagg.play import COHORT, NAMES, PARAMETERS, ROUNDS, SESSION, SURVIVORS, THRESHOLD, Play


def good():
    """The whole round, number by number and message by message."""
    play = Play()
    return {
        "parameters": {**PARAMETERS, "share_threshold": THRESHOLD, "neighbours": "everybody"},
        "plan_digest": play.plan,
        "session": SESSION,
        "first_round": 1,
        "rounds": ROUNDS,
        "sites": {name: about(play, name) for name in NAMES},
        "roster_digest": play.roster_digest(),
        "round": {
            "number": 1,
            "weights": play.weights,
            "model_digest": play.model(),
            "cohort": COHORT,
            "context": play.context(),
            "survivors": SURVIVORS,
            "pairwise_mask_seeds": {f"{one}, {two}": play.pair_seed(one, two).hex() for one, two in play.pairs()},
            "self_mask_seeds": {name: play.own_seed(name).hex() for name in NAMES},
            "total": play.total(),
        },
        "frames": {name: frame.hex() for name, frame in play.frames().items()},
    }


def about(play, name):
    """What a site holds and deals."""
    numbers = range(1, ROUNDS + 1)
    return {
        "identity_secret": play.identity_secret(name).hex(),
        "identity": play.identity(name),
        "session_secret": play.secret(name).hex(),
        "point": NAMES.index(name) + 1,
        "channel_key": play.channel_key(name).hex(),
        "mask_keys": [play.mask_key(name, number).hex() for number in numbers],
        "self_seeds": [play.self_seed(name, number).hex() for number in numbers],
        "dealt_in_round_1": {
            holder: {kind: share.hex() for kind, share in play.pair(name, holder, 1).items()} for holder in NAMES
        },
        "numbers": play.inputs[name],
    }


def as_text(value):
    return json.dumps(value, indent=1) + "\n"


def files():
    """Name and text of every file of this folder that this script writes."""
    made = {f"bad-{name}.json": as_text(vector) for name, vector in bad().items()}
    return {"good.json": as_text(good()), **made}


if __name__ == "__main__":
    for file_name, text in files().items():
        Path(__file__).with_name(file_name).write_text(text, encoding="ascii")
