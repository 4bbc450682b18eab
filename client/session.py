"""A site's secret of the running session, on disk before anything that follows from it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from client.sealed_file import read_entry, write_sealed
from common.config import StrictConfig
from common.errors import IntegrityError
from common.plan import Hexadecimal
from common.secagg.keys import SessionSecret
from common.secagg.messages import SessionInvite, SessionRoster
from common.wire import decode, encode

_FILE_NAME = "session.keys"
_HINT = "delete it: the running session is lost then, and the coordinator opens another"

PositiveInt = Annotated[int, Field(ge=1)]


class _Entry(StrictConfig):
    format_version: Literal[1] = 1
    plan_digest: Hexadecimal
    site: str
    session: Hexadecimal
    first_round: PositiveInt
    rounds: PositiveInt
    secret: Hexadecimal


class SessionBook:
    """The one session that a site takes part in now: its id, rounds and secret, and the roster it agreed to.

    Guarantees:
        What is returned is on disk. A session has one secret and at most one roster, whatever is asked, so that the
        same request is answered with the same bytes after a kill. A new session replaces secret and roster of the one
        before, which are gone then.

    Args:
        folder: An existing folder that belongs to this site and run.
        plan_digest: Of the run's plan.
        site: Name of the site.

    Raises:
        IntegrityError: When the file is damaged or belongs to another plan or site.
    """

    def __init__(self, folder: Path, plan_digest: str, site: str) -> None:
        self._path = folder / _FILE_NAME
        self._plan_digest, self._site = plan_digest, site
        self._entry: _Entry | None = None
        self.roster: SessionRoster | None = None
        if self._path.exists():
            self._entry, self.roster = self._read()

    def holds(self, message: SessionInvite | SessionRoster) -> bool:
        """Whether this is the running session, with the same rounds."""
        entry = self._entry
        asked = (message.session, message.first_round, message.rounds)
        return entry is not None and (entry.session, entry.first_round, entry.rounds) == asked

    @property
    def session(self) -> str:
        """Id of the running session; empty before the first."""
        return "" if self._entry is None else self._entry.session

    @property
    def rounds(self) -> range:
        """Rounds of the running session."""
        entry = self._entry
        return range(0) if entry is None else range(entry.first_round, entry.first_round + entry.rounds)

    @property
    def secret(self) -> SessionSecret:
        """The running session's secret.

        Raises:
            IntegrityError: When there is no session.
        """
        if self._entry is None:
            raise IntegrityError("there is no session yet")
        return SessionSecret(bytes.fromhex(self._entry.secret), self._entry.session)

    def begin(self, invite: SessionInvite) -> None:
        """Draw a secret for a new session; the one before is forgotten."""
        self._write(
            _Entry(
                plan_digest=self._plan_digest,
                site=self._site,
                session=invite.session,
                first_round=invite.first_round,
                rounds=invite.rounds,
                secret=SessionSecret.draw().hex(),
            ),
            None,
        )

    def agree_to(self, roster: SessionRoster) -> None:
        """Write down the one roster of the running session."""
        if self._entry is None or self.roster is not None:
            raise IntegrityError("a session agrees to one roster, once")
        self._write(self._entry, roster)

    def _write(self, entry: _Entry, roster: SessionRoster | None) -> None:
        write_sealed(self._path, entry.model_dump(mode="json"), b"" if roster is None else encode(roster))
        # Only now: had the write failed, the object must not believe more than the disk holds.
        self._entry, self.roster = entry, roster

    def _read(self) -> tuple[_Entry, SessionRoster | None]:
        entry, frame = read_entry(self._path, _Entry, self._unfit, self._is_ours)
        return entry, decode(frame, SessionRoster) if frame else None

    def _is_ours(self, entry: _Entry) -> bool:
        return (entry.plan_digest, entry.site) == (self._plan_digest, self._site)

    def _unfit(self, rule: str) -> IntegrityError:
        return IntegrityError(f"the session file {self._path} {rule}", hint=_HINT)
