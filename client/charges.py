"""The book in which a site writes down, for one run, which rounds it has paid for and what it answered.

A round is paid for *before* a record is touched and answered *after* the answer is on disk, so that whatever moment
the process is killed at, what was charged covers what was released. Two files hold all of it, and each is replaced in
one step:

    charges.book     canonical JSON | newline | SHA-256 of all that
    charges.answer   the last answer, whose SHA-256 stands in the book

The answer, by far the longer one, is on disk before the book names it, and is only then an answer at all. The digests
find damage. They do not stop somebody who edits the files; an older copy is noticed by a witness, which a hospital's
node has in its ledger (`client/ledger/witness.py`).

Where updates are masked, the book also holds what the round is bound to and the one survivor set that the site agreed
to: written down before the site signs it, so that no kill makes it sign, or reveal for, another.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from client.sealed_file import read_entry, write_private, write_sealed
from client.standing import AGREED, ANSWERED, CHARGED, BookStanding, Witness
from common.canonical import digest
from common.config import Names, StrictConfig
from common.errors import IntegrityError, RefusedError
from common.fields import RefusalCode
from common.plan import Plan

_FILE_NAME = "charges.book"
_ANSWER_NAME = "charges.answer"
# An older copy would have an order answered twice under one mask, so that a backup is no way out.
_HINT = "without it nobody knows what was spent, and an older copy is unsafe: start a new run in a new folder"

Count = Annotated[int, Field(ge=0)]


class _Entry(StrictConfig):
    """Where a run stands: `last_order` is the digest of the order that `last_round` was charged for.

    `answer_digest` is that of the answer to it, where it was answered. `context` and `cohort` are those of that order
    where it was one for masked numbers; `survivors` is the set that the site agreed to in that round, empty before.
    """

    format_version: Literal[1] = 1
    plan_digest: str
    site: str
    rounds_charged: Count = 0
    last_round: Count = 0
    last_order: str = ""
    answered: bool = False
    answer_digest: str = ""
    context: str = ""
    cohort: Names = ()
    survivors: Names = ()

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.last_round == 0:
            possible = self.rounds_charged == 0 and not self.last_order and not self.answered and not self.context
        else:
            possible = 0 < self.rounds_charged <= self.last_round and bool(self.last_order)
        answered = bool(self.answer_digest) == self.answered and (self.answered or not self.survivors)
        if not possible or not answered or bool(self.cohort) != bool(self.context):
            raise ValueError("the counts contradict each other")
        return self


class Charges:
    """The durable book of one site in one run.

    Guarantees:
        A round is charged once, on disk, before `charge` returns. At most one answer is ever kept for a round, and it
        is on disk before `keep_answer` returns; the same holds for its survivor set. The witness has each step before
        anything follows from it. Rounds only go up, and none goes
        beyond the plan's last, so that the steps charged never exceed the plan's. When a write fails, the object claims
        no more than it did before.

    Edge cases:
        Killed between charge and answer, the same order may be trained again without a second charge, because nothing
        was released; another order for that round is refused for good. Rounds may be skipped: an order can be lost on
        the way. Only the last answer is kept; an older order is past. An answer that was written when the process was
        killed, before the book named it, never counts. One process at a time may use a folder.

    Args:
        folder: An existing folder that belongs to this site and run; the book is begun if it holds none.
        plan: The plan of the run.
        site: Name of the site.
        must_exist: Set when the run has begun before, so that a missing book is a lost one.
        witness: Remembers the book's standing; without one, an older copy goes unnoticed here.

    Raises:
        IntegrityError: When the book or its answer is damaged or lost, or belongs to another plan or site. It is never
            begun anew.
        RollbackError: When the witness knows of more than the book does.
    """

    def __init__(
        self, folder: Path, plan: Plan, site: str, *, must_exist: bool = False, witness: Witness | None = None
    ) -> None:
        self.site = site
        self.plan_digest = plan.digest
        self._rounds = plan.rounds
        self._steps_a_round = plan.local_steps
        self._path, self._answer_path = folder / _FILE_NAME, folder / _ANSWER_NAME
        if self._path.exists():
            self._entry = self._read()
            if self._entry.answered:
                self._read_answer()
        elif must_exist:
            raise self._unfit("is missing")
        else:
            self._write(_Entry(plan_digest=self.plan_digest, site=site))
        self._witness = witness
        if witness is not None:
            witness.check(self.standing)
            # Killed between the book and its witness, the witness is one step behind.
            self._tell()

    @property
    def standing(self) -> BookStanding:
        """How far this book has come."""
        entry = self._entry
        if entry.survivors:
            return BookStanding(entry.last_round, AGREED, digest(list(entry.survivors)))
        if entry.answered:
            return BookStanding(entry.last_round, ANSWERED, entry.answer_digest)
        return BookStanding(entry.last_round, CHARGED, entry.last_order)

    @property
    def rounds_charged(self) -> int:
        """Rounds paid for, answered or not."""
        return self._entry.rounds_charged

    @property
    def steps_charged(self) -> int:
        """DP-SGD steps paid for; the number that ε is computed from."""
        return self._entry.rounds_charged * self._steps_a_round

    @property
    def last_round(self) -> int:
        """The highest round paid for; 0 before the first."""
        return self._entry.last_round

    def fault(self, round_number: int, order_digest: str) -> RefusalCode | None:
        """Why this order may not be served, or None when it may: a new round, or the last one's order once more."""
        if round_number > self._rounds or round_number < max(1, self._entry.last_round):
            return "unexpected-round"
        if round_number == self._entry.last_round and order_digest != self._entry.last_order:
            return "conflicting-order"
        return None

    def kept_answer(self, order_digest: str) -> bytes | None:
        """The answer that this very order was given before, from disk; None when it has none yet.

        Raises:
            IntegrityError: When book or answer was damaged or changed by somebody else since it was opened.
        """
        if not self._entry.answered or order_digest != self._entry.last_order:
            return None
        self._check_unchanged()
        self._tell()
        return self._read_answer()

    @property
    def context(self) -> str:
        """What the last round's masks are bound to; empty where it had none."""
        return self._entry.context

    @property
    def cohort(self) -> tuple[str, ...]:
        """The cohort of the last round; empty where its numbers were not masked."""
        return self._entry.cohort

    def charge(self, round_number: int, order_digest: str, context: str = "", cohort: tuple[str, ...] = ()) -> None:
        """Pay for a round; paying again for the last round's unanswered order costs nothing.

        Args:
            round_number: From 1.
            order_digest: SHA-256 of the order's bytes, in hexadecimal.
            context: What the round's masks are bound to, where there are any.
            cohort: Sites whose masks are in the round.

        Raises:
            RefusedError: When `fault` names one, or the round was answered already. Nothing is charged.
        """
        self._check_unchanged()
        fault = self.fault(round_number, order_digest)
        if fault is not None:
            raise RefusedError(f"round {round_number} cannot be charged: {fault}")
        if round_number > self._entry.last_round:
            paid = {"rounds_charged": self._entry.rounds_charged + 1, "last_round": round_number}
            about = {
                "last_order": order_digest,
                "answered": False,
                "answer_digest": "",
                "context": context,
                "cohort": cohort,
                "survivors": (),
            }
            self._step(self._entry.model_copy(update={**paid, **about}))
            self._answer_path.unlink(missing_ok=True)  # of the round before: the book does not name it any more
        elif self._entry.answered:
            raise RefusedError(f"round {round_number} cannot be charged: it was answered already")
        else:
            self._tell()

    def keep_answer(self, answer: bytes) -> None:
        """Write the answer of the charged round to disk; only then may it leave.

        Raises:
            RefusedError: When no round waits for an answer. The kept one stays.
        """
        self._check_unchanged()
        if self._entry.last_round == 0 or self._entry.answered:
            raise RefusedError(f"round {self._entry.last_round} has no open charge, so no answer can be kept for it")
        write_private(self._answer_path, answer)
        answered = {"answered": True, "answer_digest": hashlib.sha256(answer).hexdigest()}
        self._step(self._entry.model_copy(update=answered))

    def survivors_fault(self, round_number: int, survivors: tuple[str, ...]) -> RefusalCode | None:
        """Why these survivors may not be agreed to; None for the first set of the last, answered round, and again."""
        entry = self._entry
        if round_number != entry.last_round or not entry.answered or not entry.context:
            return "unexpected-round"
        return None if entry.survivors in ((), survivors) else "conflicting-survivors"

    def agree_to(self, round_number: int, survivors: tuple[str, ...]) -> None:
        """Write down the one survivor set of the last round; the same one again costs nothing.

        Raises:
            RefusedError: When `survivors_fault` names a fault. Nothing is written.
        """
        self._check_unchanged()
        fault = self.survivors_fault(round_number, survivors)
        if fault is not None:
            raise RefusedError(f"the survivors of round {round_number} cannot be agreed to: {fault}")
        if not self._entry.survivors:
            self._step(self._entry.model_copy(update={"survivors": survivors}))
        else:
            self._tell()

    def _step(self, entry: _Entry) -> None:
        """One step of the book, and then of its witness."""
        self._write(entry)
        self._tell()

    def _tell(self) -> None:
        """Also where a step is used again: its witness may have failed the first time, on a full disk say."""
        if self._witness is not None and self._entry.last_round > 0:
            self._witness.note(self.standing)

    def _check_unchanged(self) -> None:
        """Another process with this book would give a second answer for one charge: refuse as soon as it shows."""
        if self._read() != self._entry:
            raise self._unfit("was changed by somebody else")

    def _write(self, entry: _Entry) -> None:
        write_sealed(self._path, entry.model_dump(mode="json"))
        # Only now: had the write failed, the object must not believe more than the disk holds.
        self._entry = entry

    def _read(self) -> _Entry:
        entry, rest = read_entry(self._path, _Entry, self._unfit, self._is_ours)
        if rest:
            raise self._unfit("is not one that this version writes")
        return entry

    def _read_answer(self) -> bytes:
        try:
            answer = self._answer_path.read_bytes()
        except FileNotFoundError:
            raise self._unfit("has lost its answer") from None
        if hashlib.sha256(answer).hexdigest() != self._entry.answer_digest:
            raise self._unfit("has an answer that is damaged")
        return answer

    def _is_ours(self, entry: _Entry) -> bool:
        return (entry.plan_digest, entry.site) == (self.plan_digest, self.site) and entry.last_round <= self._rounds

    def _unfit(self, rule: str) -> IntegrityError:
        return IntegrityError(f"the book of charges {self._path} {rule}", hint=_HINT)
