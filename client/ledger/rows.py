"""The ledger's entries: what each may say, how each is tied to the one before it, and who wrote it.

An entry has a sequence number from 1, a time, a kind, its content as canonical JSON, the hash of the entry before it,
its own hash over all that, and a signature by the site's identity over that hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from client.standing import Step
from common.canonical import canonical_bytes, digest
from common.config import Names, StrictConfig, parse_config
from common.errors import IntegrityError, TryAgainError
from common.identity import is_signed_by, sign
from common.plan import Hexadecimal, Unit

NOTHING_BEFORE = "0" * 64
"""What the first entry names as the hash of the one before it."""

_PURPOSE = "ledger entry"
HINT = "`cloister-site recover` writes down that it happened, and charges the worst case"

Dataset = Annotated[str, Field(min_length=1, max_length=64)]
Sentence = Annotated[str, Field(min_length=1, max_length=2000)]
FromOne = Annotated[int, Field(ge=1)]
Cost = Annotated[float, Field(ge=0)]


class Opened(StrictConfig):
    """A ledger begins: whose it is, on which machine, and a random name that no other ledger has."""

    format_version: Literal[1] = 1
    ledger: Hexadecimal
    site: Hexadecimal
    host: Hexadecimal


class BudgetSet(StrictConfig):
    """A budget was created, raised or lowered by a person; the order is that of its creation."""

    dataset: Dataset
    unit: Unit
    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    order: Annotated[int, Field(ge=2, le=1024)]


class Reserved(StrictConfig):
    """The full cost of a plan was set aside before its first round; it was computed from the mechanism."""

    plan_digest: Hexadecimal
    plan_name: Dataset
    coordinator: Hexadecimal
    dataset: Dataset
    unit: Unit
    rounds: FromOne
    cost: Cost
    mechanism: dict[str, int | float | str]


class Committed(StrictConfig):
    """A round of a reserved plan is about to touch records, for an order of this digest."""

    plan_digest: Hexadecimal
    round_number: FromOne
    order_digest: Hexadecimal


class Stepped(StrictConfig):
    """The round that was begun last came further: answered, or agreed to one survivor set; by its digest."""

    plan_digest: Hexadecimal
    round_number: FromOne
    step: Step
    digest: Hexadecimal


class Recovered(StrictConfig):
    """A person wrote down why the ledger cannot be trusted; everything there is counts as spent.

    `finding` is the fault that was met, and `plans` are those of the ledger that was set aside, as far as it could be
    read: they are never taken up again.
    """

    reason: Sentence
    finding: str
    plans: Names = ()


Content = Opened | BudgetSet | Reserved | Committed | Stepped | Recovered

KINDS: dict[str, type[Content]] = {
    "opened": Opened,
    "budget": BudgetSet,
    "reserve": Reserved,
    "commit": Committed,
    "step": Stepped,
    "recovery": Recovered,
}
_NAMES: dict[type[Content], str] = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True)
class Row:
    """One entry as it stands in the file; every field is text but the sequence number."""

    sequence: int
    time: str
    kind: str
    content: str
    previous: str
    hash: str
    signature: str

    @property
    def when(self) -> datetime:
        """The site's clock when the entry was written."""
        return datetime.fromisoformat(self.time)

    @property
    def meaning(self) -> Content:
        """The content as an object of its kind.

        Raises:
            IntegrityError: When the kind is unknown, or the content is not one of its kind.
        """
        try:
            return KINDS[self.kind].model_validate_json(self.content)
        except (KeyError, ValidationError):
            raise unfit(f"holds entry {self.sequence}, which is not one that this version writes") from None


def recovery(reason: str, finding: str, plans: tuple[str, ...]) -> Recovered:
    """The entry of a recovery.

    Raises:
        ConfigError: When the reason is empty or too long.
    """
    return parse_config(Recovered, {"reason": reason, "finding": finding, "plans": plans}, "the recovery")


def unfit(rule: str) -> IntegrityError:
    """The error for a ledger that is not what this site wrote."""
    return IntegrityError(f"the ledger {rule}", hint=HINT)


def not_now(path: Path, why: str | None) -> TryAgainError:
    """The error for a file that the disk does not give or take at the moment."""
    hint = "no record was touched; free space or mend the permissions, then try again"
    return TryAgainError(f"{path} cannot be used now: {why or 'the disk gave an error'}", hint=hint)


def new_row(last: Row | None, content: Content, now: datetime, identity: Ed25519PrivateKey) -> Row:
    """The entry that follows `last`, signed."""
    sequence = 1 if last is None else last.sequence + 1
    previous = NOTHING_BEFORE if last is None else last.hash
    time = now.astimezone(UTC).isoformat(timespec="microseconds")
    text = canonical_bytes(content.model_dump(mode="json")).decode("ascii")
    own = _hash(sequence, time, _NAMES[type(content)], text, previous)
    return Row(sequence, time, _NAMES[type(content)], text, previous, own, sign(identity, _PURPOSE, own).hex())


def check_chain(rows: Sequence[Row], public: str) -> None:
    """Refuse rows that are not a whole chain from 1 on, written by the holder of this key.

    Guarantees:
        Whoever lacks the key cannot change, remove, add or reorder entries unnoticed, except at the end: that rows are
        missing there shows by the anchor only.

    Args:
        rows: In the order of their sequence numbers.
        public: The site's identity, 64 hexadecimal digits.

    Raises:
        IntegrityError: Naming the first entry that is wrong.
    """
    previous = NOTHING_BEFORE
    for position, row in enumerate(rows, start=1):
        if row.sequence != position or row.previous != previous:
            raise unfit(f"is not whole: entry {position} is missing or does not follow the one before it")
        if row.hash != _hash(row.sequence, row.time, row.kind, row.content, row.previous):
            raise unfit(f"was edited: entry {position} does not have the hash that it names")
        if not is_own(row, public):
            raise unfit(f"was not written by this site: entry {position} lacks its signature")
        previous = row.hash


def own_meaning(row: Row, public: str) -> Content:
    """The content of an entry that the holder of this key signed, whatever stands before or after it.

    Raises:
        IntegrityError: When it was not signed by that key, or is not one that this version writes.
    """
    if not is_own(row, public):
        raise unfit(f"has an entry {row.sequence} that this site did not write")
    return row.meaning


def is_own(row: Row, public: str) -> bool:
    """Whether the holder of this key signed just this entry."""
    own = _hash(row.sequence, row.time, row.kind, row.content, row.previous)
    try:
        signature = bytes.fromhex(row.signature)
    except ValueError:
        return False
    # One spelling only: `fromhex` takes spaces and capitals, too.
    well_spelled = signature.hex() == row.signature
    return own == row.hash and well_spelled and is_signed_by(public, _PURPOSE, own, signature)


def _hash(sequence: int, time: str, kind: str, content: str, previous: str) -> str:
    return digest(["cloister ledger", 1, sequence, time, kind, content, previous])
