"""The pretrained base at a site: found among what the hospital has, or received chunk by chunk, checked and kept.

    bases/BASE/                a whole base under its digest, shared by all runs whose plans name the same hashes
    bases/.PLAN.partial/       files on their way
    bases/.PLAN.progress       how far they have come

Nothing of a base is ever run or imported here; the files are bytes until `common.base_model` reads them.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog

from client.base_staging import Staging
from common.base_files import check_index, find_copy, is_copy
from common.errors import IntegrityError, RefusedError
from common.fields import CHUNK_BYTES, BaseState
from common.plan import Plan
from common.private_files import PRIVATE_FOLDER
from common.study_messages import BaseChunk, BaseNeed

_log = structlog.get_logger()

LIMIT_BYTES = 20_000_000_000
"""All bases that a site keeps or receives may take so much of its disk, unless its config says otherwise."""
RESERVE_BYTES = 1_000_000_000
"""Left free on the disk: books and ledger must always find room."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BaseCache:
    """What a site has of one plan's base, and what it lacks.

    Guarantees:
        `find` gives only a folder whose every file was read and had the plan's hash, and that holds no file which would
        change what is loaded. What is received is written in order, never beyond the limit or into the reserve, under
        names that `file_names` lets through, and becomes visible as a whole, in one step. No chunk of another plan, of
        another place or of another length is written. Memory: the chunk that was handed in.

    Edge cases:
        A chunk that came twice, or whose answer was lost, is answered with what is needed now. Killed at any moment,
        the next process asks for the chunk after the last one that was noted. A file with a wrong hash is deleted and
        asked for again, twice; then the site has given up until `discard`. Two runs that receive the same base at once
        do so apart from each other, and share what is whole first.

    Args:
        folder: The site's folder of bases; made when it is missing.
        plan: The plan that names the base.
        site: Name of the site, for its answers.
        local: Folders to look in first, as `find_base` takes them.
        limit_bytes: Bytes that all bases in `folder` may have.
        reserve_bytes: Bytes to leave free on its disk.

    Raises:
        ConfigError: When the plan names a file that no base may have.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        site: str,
        local: Sequence[str] = (),
        *,
        limit_bytes: int = LIMIT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        self._folder, self._site, self._local = folder, site, tuple(local)
        self._plan_digest, self._base = plan.digest, plan.base
        self._limit_bytes, self._reserve_bytes = limit_bytes, reserve_bytes
        self._place = folder / plan.base.digest
        self._staging = Staging(folder, plan)
        self._found: Path | None = None

    def find(self) -> Path | None:
        """The folder of the base, checked; None while it is lacking. Hashing takes seconds a gigabyte, once a process.

        Raises:
            IntegrityError: When a local base fits, but its index leads out of its folder.
        """
        if self._found is None:
            self._found = find_copy(self._local, self._base)
            self._local = ()  # they were looked through
        if self._found is None:
            self._found = self._find_received()
        return self._found

    def need(self) -> BaseNeed:
        """What to ask the coordinator for now."""
        if self.find() is not None:
            return self._say("complete")
        if self._staging.has_failed:
            return self._say("damaged")
        return self._say("lacking", *self._staging.next)

    def receive(self, chunk: BaseChunk) -> BaseNeed:
        """Take in a chunk, if it is the one that is needed.

        Returns:
            What is needed next; `no-room` when this chunk, or the rest of its file, does not fit.

        Raises:
            RefusedError: When it is of another plan.
            IntegrityError: When its length does not fit its place.
            OSError: When the disk fails in another way than being full.
        """
        if chunk.plan_digest != self._plan_digest:
            raise RefusedError("a chunk of another plan's base is not taken in")
        needed = self.need()
        if (needed.state, needed.file_number, needed.chunk_number) != (
            "lacking",
            chunk.file_number,
            chunk.chunk_number,
        ):
            return needed
        _check_length(chunk)
        if not self._has_room_for(chunk):
            return self._say("no-room")
        try:
            self._staging.take(chunk)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _log.warning("base model: the disk is full", base=self._base.name)
            return self._say("no-room")
        return self.need()

    def discard(self) -> None:
        """Forget what was received in part, and that it failed; whole bases stay."""
        self._staging.discard()

    def _find_received(self) -> Path | None:
        if not self._place.is_dir():
            return self._put_in_place() if self._staging.is_whole else None
        if is_copy(self._place, self._base):
            self._staging.discard()
            return self._place
        _log.warning("base model: the kept copy is damaged and is deleted", base=self._base.name)
        shutil.rmtree(self._place)
        return None

    def _put_in_place(self) -> Path | None:
        try:
            check_index(self._staging.folder, self._base)
        except IntegrityError as error:
            self._staging.give_up(error.message)
            return None
        self._staging.move_to(self._place)
        return self._place

    def _has_room_for(self, chunk: BaseChunk) -> bool:
        """Whether the rest of the chunk's file, of which only the last chunk's length is unknown, can be kept."""
        rest = max(len(chunk.content), (chunk.chunks - chunk.chunk_number) * CHUNK_BYTES + 1)
        kept, free = _size_of(self._folder), shutil.disk_usage(self._folder).free
        if kept + rest <= self._limit_bytes and rest <= free - self._reserve_bytes:
            return True
        _log.warning(
            "base model: no room", base=self._base.name, needed=rest, kept=kept, limit=self._limit_bytes, free=free
        )
        return False

    def _say(self, state: BaseState, file_number: int = 0, chunk_number: int = 0) -> BaseNeed:
        return BaseNeed(self._plan_digest, self._site, state, file_number, chunk_number)


def _check_length(chunk: BaseChunk) -> None:
    """All chunks but the last are full, and only an empty file has an empty one.

    Raises:
        IntegrityError: When one is not.
    """
    is_last, size = chunk.chunk_number == chunk.chunks, len(chunk.content)
    if chunk.chunk_number > chunk.chunks:
        raise IntegrityError(f"chunk {chunk.chunk_number} of {chunk.chunks} cannot be")
    if size > CHUNK_BYTES or (size < CHUNK_BYTES and not is_last) or (size == 0 and chunk.chunks > 1):
        raise IntegrityError(f"chunk {chunk.chunk_number} of {chunk.chunks} has {size} bytes")


def _size_of(folder: Path) -> int:
    """Bytes of all files below a folder; links are counted, not followed."""
    return sum(Path(parent, name).lstat().st_size for parent, _, names in os.walk(folder) for name in names)
