"""The rules one by one; tests/privacy/test_lying_coordinator.py tells a site the lies that they are against."""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import ProtocolError
from common.identity import new_identity, public_name, sign
from common.secagg import roster as keys_of
from common.secagg.keys import SessionSecret, public_bytes, seed_commitment
from common.secagg.messages import KEY_PURPOSE, SessionKeys, SessionRoster, join

IDENTITIES = {name: new_identity() for name in ("a", "b", "c")}
PUBLIC = {name: public_name(identity) for name, identity in IDENTITIES.items()}
SECRETS = {name: SessionSecret(name.encode() * 32, "5e" * 32) for name in IDENTITIES}
FIRST, ROUNDS = 5, 3


def keys(name: str) -> list[bytes]:
    secret = SECRETS[name]
    parts = [public_bytes(secret.channel_key())]
    for number in range(FIRST, FIRST + ROUNDS):
        parts += [public_bytes(secret.mask_key(number)), seed_commitment(secret.self_seed(number))]
    return parts


def signed(name: str, parts: list[bytes], *, by: str = "", rounds: int = ROUNDS) -> SessionKeys:
    scalars = ("ab" * 32, "5e" * 32, FIRST, rounds, name)
    content = SessionKeys(*scalars, join(parts), join([])).signed_content()
    return SessionKeys(*scalars, join(parts), join([sign(IDENTITIES[by or name], KEY_PURPOSE, content)]))


def whole(**changed: SessionKeys) -> SessionRoster:
    parts = {name: signed(name, keys(name)) for name in IDENTITIES}
    return SessionRoster.of((parts | changed).values())


def test_a_true_roster_passes_and_each_key_is_found_in_its_place():
    parts = keys_of.checked_parts(whole(), PUBLIC)
    assert list(parts) == ["a", "b", "c"]
    for name, part in parts.items():
        assert keys_of.channel_key(part) == public_bytes(SECRETS[name].channel_key())
        for number in range(FIRST, FIRST + ROUNDS):
            assert keys_of.mask_key(part, number) == public_bytes(SECRETS[name].mask_key(number))
            assert keys_of.commitment(part, number) == seed_commitment(SECRETS[name].self_seed(number))


def test_a_wrong_number_of_keys_is_refused():
    with pytest.raises(ProtocolError, match="the keys of a must have 224 bytes, not 192"):
        keys_of.check_part(signed("a", keys("a")[:-1]), PUBLIC)


def test_a_name_outside_the_plan_is_refused():
    with pytest.raises(ProtocolError, match="a is not in the plan's roster"):
        keys_of.check_part(signed("a", keys("a")), {"b": PUBLIC["b"]})


def test_another_identity_is_refused():
    with pytest.raises(ProtocolError, match="the keys of a are not signed"):
        keys_of.check_part(signed("a", keys("a"), by="b"), PUBLIC)


@pytest.mark.parametrize("place", [0, 1, 3, 5])
def test_a_key_of_low_order_is_refused_wherever_it_stands(place):
    parts = keys("a")
    parts[place] = bytes(32)
    with pytest.raises(ProtocolError, match="a public key of a gives no shared secret"):
        keys_of.check_part(signed("a", parts), PUBLIC)


@pytest.mark.parametrize("place", [2, 4, 6])
def test_a_commitment_may_be_any_bytes(place):
    parts = keys("a")
    parts[place] = bytes(32)
    keys_of.check_part(signed("a", parts), PUBLIC)


@pytest.mark.parametrize(("from_place", "to_place"), [(0, 0), (1, 1), (1, 3), (0, 5), (2, 2)])
def test_a_key_of_another_site_is_refused_wherever_it_stands(from_place, to_place):
    parts = keys("b")
    parts[to_place] = keys("a")[from_place]
    with pytest.raises(ProtocolError, match="twice"):
        keys_of.checked_parts(whole(b=signed("b", parts)), PUBLIC)


def test_one_key_for_two_rounds_is_refused():
    """To open the mask key of one round would open the other's."""
    parts = keys("b")
    parts[3] = parts[1]
    with pytest.raises(ProtocolError, match="twice"):
        keys_of.checked_parts(whole(b=signed("b", parts)), PUBLIC)


def test_the_first_wrong_site_is_named():
    wrong = signed("b", keys("b"))
    altered = replace(wrong, signature=np.zeros(64, np.uint8))
    with pytest.raises(ProtocolError, match="the keys of b are not signed"):
        keys_of.checked_parts(whole(b=altered), PUBLIC)
