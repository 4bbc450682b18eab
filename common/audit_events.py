"""What may stand in an audit log: one frozen type a kind of event, one closed rule a field.

Guarantees:
    No field takes free text. What is written is a name, a key, a digest, a code, a count or a time; the longest field
    that a person can choose is their own name of at most 64 letters. So neither a record nor a secret has a place here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.audit_fields import (
    Address,
    Command,
    Count,
    Digest,
    ExitCode,
    FleetPath,
    Kept,
    Label,
    Labels,
    MessageKind,
    Name,
    Part,
    Person,
    PublicKey,
    ReleaseClass,
    RoundNumber,
    Time,
    Version,
    most_revealing,
)
from common.config import StrictConfig
from common.fields import Outcome

# --- either side ---


class Started(StrictConfig):
    """A process began its work."""

    part: Part
    version: Version


class Stopped(StrictConfig):
    """A process ended its work in order; one that was killed writes nothing."""

    part: Part
    reason: Literal["asked", "signal", "finished", "failed"]
    exit_code: ExitCode = 0


class Paused(StrictConfig):
    """A person asked for a pause."""

    by: Person


class Resumed(StrictConfig):
    """A person ended the pause."""

    by: Person


class AdminCommand(StrictConfig):
    """A person gave a command that changed something; `command` is its words without arguments."""

    command: Command
    by: Person
    exit_code: ExitCode = 0


class Mended(StrictConfig):
    """A line that a crash had torn was taken off the log; these are its size and digest."""

    size_bytes: Count
    digest: Digest


class Recovered(StrictConfig):
    """A person let work go on after a loss; `digest` is that of what was put aside, where there was anything."""

    what: Kept
    by: Person
    digest: Digest | None = None


class RollbackDetected(StrictConfig):
    """An older copy of what only ever grows was found."""

    what: Kept


class DamageDetected(StrictConfig):
    """Bytes on disk are not those that were written."""

    what: Kept


class RunBegan(StrictConfig):
    """The first round of a plan is next, or the next one after a restart."""

    plan: Digest
    next_round: RoundNumber


class RunEnded(StrictConfig):
    """There will be no more rounds of a plan."""

    plan: Digest
    outcome: Outcome


# --- a site ---


class Joined(StrictConfig):
    """An invitation was accepted, and its coordinator pinned."""

    federation: Digest
    coordinator: PublicKey
    by: Person


class PlanSeen(StrictConfig):
    """A signed plan came in, or a person opened it."""

    plan: Digest
    name: Name
    coordinator: PublicKey
    valid_until: Time | None = None


class Approved(StrictConfig):
    """A person approved a plan."""

    plan: Digest
    by: Person


class ApprovalWithdrawn(StrictConfig):
    """A person took an approval back."""

    plan: Digest
    by: Person


class Refused(StrictConfig):
    """The site did not do what it was asked; `plan` is None where the request could not be read that far."""

    plan: Digest | None
    codes: Annotated[Labels, Field(min_length=1)]
    round_number: Count = 0


class Reserved(StrictConfig):
    """The ledger set a plan's full cost aside; `cost` in the ledger's own measure, rounded up by the caller."""

    plan: Digest
    dataset: Name
    unit: Literal["patient", "record"]
    rounds: RoundNumber
    cost: Annotated[float, Field(ge=0)]


class RoundCharged(StrictConfig):
    """A round was paid for, before a record was touched; `order` is the digest of the order."""

    plan: Digest
    round_number: RoundNumber
    order: Digest


class MessageOut(StrictConfig):
    """A message is about to leave: its bytes by release class, and the digest of all of them.

    `release_class` is the most revealing class that has bytes in it; `round_number` is 0 outside rounds.
    """

    message: MessageKind
    plan: Digest
    round_number: Count
    release_class: ReleaseClass
    bytes_by_class: dict[ReleaseClass, Count]
    size_bytes: Count
    digest: Digest
    recipient: Name

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if sum(self.bytes_by_class.values()) != self.size_bytes:
            raise ValueError("the bytes by class do not add up to the size")
        if self.release_class != most_revealing(self.bytes_by_class):
            raise ValueError("the release class is not the most revealing one")
        return self


class MessageRepeated(StrictConfig):
    """The identical bytes of an earlier answer leave once more, because the request was an exact repeat."""

    digest: Digest
    size_bytes: Count
    recipient: Name


class MessageRefused(StrictConfig):
    """A message that came in was not taken: too long, unreadable, not signed, replayed, or for somebody else."""

    code: Label
    size_bytes: Count
    digest: Digest


# --- the coordinator ---


class Enrolled(StrictConfig):
    """A site was enrolled under its public key."""

    site: Name
    public: PublicKey
    by: Person


class Withdrawn(StrictConfig):
    """A site's enrolment was taken back."""

    site: Name
    by: Person


class PlanSigned(StrictConfig):
    """The coordinator signed a plan."""

    plan: Digest
    name: Name
    by: Person


class RoundEnded(StrictConfig):
    """A round is over; `sites` of them are in its sum, and `applied` says whether the model took it."""

    plan: Digest
    round_number: RoundNumber
    sites: Count
    applied: bool


class GatewayAccess(StrictConfig):
    """Like requests, counted; `path` is a known one or `other`, never what a stranger wrote.

    `remote` is an address, a network, or `others` beyond those that are told apart; `status` is 0 where the connection
    was closed without an answer.
    """

    remote: Address
    path: FleetPath
    status: Annotated[int, Field(ge=0, le=599)]
    requests: Annotated[int, Field(ge=1)] = 1
    bytes_in: Count = 0
    bytes_out: Count = 0


AuditEvent = (
    Started
    | Stopped
    | Paused
    | Resumed
    | AdminCommand
    | Mended
    | Recovered
    | RollbackDetected
    | DamageDetected
    | RunBegan
    | RunEnded
    | Joined
    | PlanSeen
    | Approved
    | ApprovalWithdrawn
    | Refused
    | Reserved
    | RoundCharged
    | MessageOut
    | MessageRepeated
    | MessageRefused
    | Enrolled
    | Withdrawn
    | PlanSigned
    | RoundEnded
    | GatewayAccess
)
"""Everything that can be recorded."""
