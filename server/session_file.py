"""What a coordinator finds again after a kill between two messages: the session, and a sum that waits for its masks.

Two files beside the checkpoint, each replaced in one step. Neither says anything about one site: the shares in a
session are sealed, and the sum is masked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import IntegrityError
from common.fields import Bytes, Ring
from common.plan import Plan
from common.secagg.messages import SessionRoster, SessionShares, join
from common.wire import decode, encode
from server.sealed_arrays import Arrays, read_arrays, write_arrays
from server.secagg import Session

SESSION_NAME = "session.safetensors"
PENDING_NAME = "pending-sum.safetensors"


@dataclass(frozen=True, eq=False)
class PendingSum:
    """A sum whose survivors are about to be told, or have been.

    Attributes:
        order_digest: SHA-256 of the order, in hexadecimal.
        survivors: Sites in the sum.
        signatures: Of each survivor's reply, `[64 s]`.
        masked_total: `[d]`.
    """

    order_digest: str
    survivors: tuple[str, ...]
    signatures: Bytes = field(repr=False)
    masked_total: Ring = field(repr=False)


def save_session(folder: Path, session: Session) -> None:
    """Write a session down before its first round."""
    arrays: Arrays = {"roster": join([encode(session.roster)])}
    arrays |= {f"shares.{site}": join([encode(shares)]) for site, shares in session.dealt.items()}
    write_arrays(folder / SESSION_NAME, arrays, {"sites": sorted(session.dealt)})


def load_session(folder: Path, plan: Plan) -> Session | None:
    """The session that was saved last; None where there is none, or it was given up.

    Raises:
        IntegrityError: When the file is damaged or of another plan.
    """
    found = _read(folder / SESSION_NAME)
    if found is None or not found[0]:
        return None
    arrays, document = found
    roster = decode(arrays["roster"].tobytes(), SessionRoster)
    if roster.plan_digest != plan.digest:
        raise IntegrityError(
            f"{folder / SESSION_NAME} belongs to another plan", hint="resume with the plan that began the run"
        )
    dealt = {site: decode(arrays[f"shares.{site}"].tobytes(), SessionShares) for site in document["sites"]}
    return Session(plan, roster, dealt)


def forget_session(folder: Path) -> None:
    """Give the session up: the next round opens another."""
    write_arrays(folder / SESSION_NAME, {}, {})


def save_pending(folder: Path, pending: PendingSum) -> None:
    """Write a sum down before anybody is told who is in it."""
    document = {"order_digest": pending.order_digest, "survivors": list(pending.survivors)}
    write_arrays(
        folder / PENDING_NAME, {"masked_total": pending.masked_total, "signatures": pending.signatures}, document
    )


def load_pending(folder: Path, order_digest: str) -> PendingSum | None:
    """The sum of this very order, if one was saved.

    Raises:
        IntegrityError: When the file is damaged.
    """
    found = _read(folder / PENDING_NAME)
    if found is None or found[1]["order_digest"] != order_digest:
        return None
    arrays, document = found
    return PendingSum(order_digest, tuple(document["survivors"]), arrays["signatures"], arrays["masked_total"])


def _read(path: Path) -> tuple[Arrays, dict[str, Any]] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    found = read_arrays(content)
    if found is None:
        raise IntegrityError(f"{path} is damaged", hint="delete it: the round in progress is lost, and stays charged")
    return found
