"""A session's keys, checked against the identities of the plan, and where in the bytes each key stands."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import ProtocolError
from common.identity import is_signed_by
from common.secagg.keys import KEY_BYTES, gives_secrets, keys_size
from common.secagg.messages import KEY_PURPOSE, SessionKeys, SessionRoster


def checked_parts(roster: SessionRoster, identities: Mapping[str, str]) -> dict[str, SessionKeys]:
    """Each site's keys by name, when every one of them is what that site signed and no two are equal.

    A key that stands twice would be a site's key under another's name, which a signature alone does not rule out when
    its owner colludes.

    Args:
        roster: As the coordinator put it together.
        identities: Public identity of each site, from the plan.

    Raises:
        ProtocolError: Naming the first site whose keys are not its own.
    """
    parts = roster.parts()
    for part in parts.values():
        check_part(part, identities)
    keys = [key for part in parts.values() for key in _keys_and_commitments(part)]
    if len(set(keys)) != len(keys):
        raise ProtocolError("a key stands twice in the roster")
    return parts


def check_part(part: SessionKeys, identities: Mapping[str, str]) -> None:
    """Check one site's keys: as many as the session's rounds want, and signed by the identity that the plan names.

    A key that gives nobody a secret would stop its owner's neighbours in the middle of a round, which is paid for then.

    Raises:
        ProtocolError: When they are not.
    """
    if len(part.keys) != keys_size(part.rounds):
        raise ProtocolError(f"the keys of {part.site} must have {keys_size(part.rounds)} bytes, not {len(part.keys)}")
    if part.site not in identities:
        raise ProtocolError(f"{part.site} is not in the plan's roster")
    if not is_signed_by(identities[part.site], KEY_PURPOSE, part.signed_content(), part.signature.tobytes()):
        raise ProtocolError(f"the keys of {part.site} are not signed by the identity that the plan names")
    if not all(gives_secrets(key) for key in _public_keys(part)):
        raise ProtocolError(f"a public key of {part.site} gives no shared secret")


def channel_key(part: SessionKeys) -> bytes:
    """The public key that peers encrypt this site's shares under."""
    return part.keys[:KEY_BYTES].tobytes()


def mask_key(part: SessionKeys, round_number: int) -> bytes:
    """The public mask key of a round."""
    return _piece(part, 1 + 2 * (round_number - part.first_round))


def commitment(part: SessionKeys, round_number: int) -> bytes:
    """The commitment to the self-mask seed of a round."""
    return _piece(part, 2 + 2 * (round_number - part.first_round))


def _piece(part: SessionKeys, place: int) -> bytes:
    return part.keys[KEY_BYTES * place : KEY_BYTES * (place + 1)].tobytes()


def _public_keys(part: SessionKeys) -> list[bytes]:
    """The channel key and each round's mask key."""
    return [_piece(part, place) for place in (0, *range(1, 2 * part.rounds, 2))]


def _keys_and_commitments(part: SessionKeys) -> list[bytes]:
    return [_piece(part, place) for place in range(1 + 2 * part.rounds)]
