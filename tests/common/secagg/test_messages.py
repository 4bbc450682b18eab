from dataclasses import replace

import numpy as np
import pytest

from common.errors import ProtocolError
from common.secagg.keys import keys_size
from common.secagg.messages import (
    SECAGG_RULES,
    SessionKeys,
    SessionRoster,
    consent_content,
    join,
    pieces,
)

PLAN, SESSION = "ab" * 32, "5e" * 32


def part(site: str, fill: int, rounds: int = 2) -> SessionKeys:
    keys = np.full(keys_size(rounds), fill, np.uint8)
    return SessionKeys(PLAN, SESSION, 3, rounds, site, keys, np.full(64, 100 + fill, np.uint8))


ROSTER = SessionRoster.of([part("b", 2), part("a", 1), part("c", 3)])


def test_every_field_of_every_message_has_a_rule():
    for kind, rules in SECAGG_RULES.items():
        assert list(rules) == list(kind.__dataclass_fields__)


# --- pieces ---


def test_pieces_and_join_are_each_others_inverse():
    parts = [b"abc", b"def", b"ghi"]
    assert join(parts).tobytes() == b"abcdefghi"
    assert [piece.tobytes() for piece in pieces(join(parts), 3, 3, "letters")] == parts
    assert pieces(join([]), 0, 3, "letters") == []


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_pieces_fit_or_are_refused(count):
    with pytest.raises(ProtocolError, match=f"letters must have {count} x 3 bytes, not 9"):
        pieces(join([b"abcdefghi"]), count, 3, "letters")


def test_sizes_of_keys():
    assert keys_size(1) == 96
    assert keys_size(32) == 2080


# --- the roster ---


def test_a_roster_holds_the_parts_in_order_of_name():
    assert ROSTER.sites == ("a", "b", "c")
    for name, own in ROSTER.parts().items():
        made = part(name, " abc".index(name))
        assert own.keys.tobytes() == made.keys.tobytes()
        assert own.signature.tobytes() == made.signature.tobytes()
        assert own.signed_content() == made.signed_content()


def test_the_order_in_which_keys_come_does_not_matter():
    assert SessionRoster.of([part("c", 3), part("a", 1), part("b", 2)]).digest == ROSTER.digest


@pytest.mark.parametrize(
    "change",
    [
        {"plan_digest": "ac" * 32},
        {"session": "5f" * 32},
        {"first_round": 4},
        {"rounds": 3},
        {"sites": ("a", "b", "d")},
        {"keys": np.append(ROSTER.keys[:-1], np.uint8(0))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_covers_all_but_the_signatures(change):
    assert replace(ROSTER, **change).digest != ROSTER.digest


def test_the_digest_does_not_cover_signatures():
    """Ed25519 lets a signer sign the same keys twice with other bytes; that is no other roster."""
    assert replace(ROSTER, signatures=ROSTER.signatures[::-1]).digest == ROSTER.digest


@pytest.mark.parametrize("name", ["keys", "signatures"])
@pytest.mark.parametrize("cut", [slice(1, None), slice(0, 0)])
def test_keys_and_signatures_are_as_many_as_the_sites(name, cut):
    with pytest.raises(ProtocolError, match=f"{name} must have 3 x"):
        replace(ROSTER, **{name: getattr(ROSTER, name)[cut]}).parts()


# --- what is signed ---


@pytest.mark.parametrize(
    "change",
    [
        {"plan_digest": "ac" * 32},
        {"session": "5f" * 32},
        {"first_round": 4},
        {"rounds": 3},
        {"site": "b"},
        {"keys": np.zeros(keys_size(2), np.uint8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_signature_covers_every_field_of_the_keys(change):
    own = part("a", 1)
    assert replace(own, **change).signed_content() != own.signed_content()


def test_a_consent_covers_round_and_set():
    assert consent_content("cd", ("a", "b")) == ["cd", ["a", "b"]]
    assert consent_content("cd", ("a", "b")) != consent_content("cd", ("ab",))


def test_secret_looking_bytes_do_not_print():
    assert "array" not in repr(part("a", 1)) + repr(ROSTER)
