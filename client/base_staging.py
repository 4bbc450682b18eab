"""Files of a base that are on their way: how much of them is safely on disk, and which chunk comes next."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import structlog
from pydantic import Field

from client.sealed_file import read_entry, write_sealed
from common.base_files import file_names
from common.canonical import file_digest
from common.config import StrictConfig
from common.errors import IntegrityError
from common.fields import CHUNK_BYTES, Bytes
from common.files import sync_folder
from common.plan import Hexadecimal, Plan
from common.private_files import PRIVATE_FILE, PRIVATE_FOLDER
from common.study_messages import BaseChunk

_log = structlog.get_logger()

Count = Annotated[int, Field(ge=0)]
MOST_ATTEMPTS = 3
"""A file with a wrong hash is asked for again; after so many attempts in all, the coordinator's copy is no use."""


class _Progress(StrictConfig):
    """Files before `file_number` are whole; of this one the first `received` of `chunks` chunks are on disk."""

    format_version: Literal[1] = 1
    plan_digest: Hexadecimal
    file_number: Annotated[int, Field(ge=1)] = 1
    received: Count = 0
    chunks: Count = 0
    failures: Count = 0


class Staging:
    """The folder in which a base grows, and the note of how far it has come.

    Guarantees:
        A chunk is on disk before the note says so, and the note is replaced in one step: killed at any moment, what
        the note says is there. A file counts as whole only after all of it was read from disk and had the plan's hash.

    Edge cases:
        A chunk that was written but not noted is asked for again and written in the same place. A note that is damaged,
        or says more than the folder holds, is forgotten: the base is asked for from the start.

    Args:
        parent: An existing folder; both the growing folder and the note lie in it under the plan's digest, so that two
            runs never write into one file.
        plan: Its base is what comes.

    Raises:
        ConfigError: When the plan names a file that no base may have.
    """

    def __init__(self, parent: Path, plan: Plan) -> None:
        self.folder = parent / f".{plan.digest}.partial"
        self._note = parent / f".{plan.digest}.progress"
        self._base = plan.base
        self._names = file_names(plan.base)
        self._progress = self._begin = _Progress(plan_digest=plan.digest)
        if self._note.exists():
            self._progress = self._read()

    @property
    def next(self) -> tuple[int, int]:
        """File and chunk that come next, both from 1."""
        return self._progress.file_number, self._progress.received + 1

    @property
    def is_whole(self) -> bool:
        """Whether every file is there and is the plan's."""
        return self._progress.file_number > len(self._names)

    @property
    def has_failed(self) -> bool:
        """Whether files came with a wrong hash too often."""
        return self._progress.failures >= MOST_ATTEMPTS

    def take(self, chunk: BaseChunk) -> None:
        """Write down the chunk that comes next; the file's last one has the whole file checked.

        Raises:
            OSError: When the disk does not take it; the same chunk still comes next.
        """
        if chunk.chunk_number > 1 and chunk.chunks != self._progress.chunks:
            self.start_over(f"{self._name} grew or shrank on its way")
            return
        path = self.folder / self._name
        self.folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        _write_at(path, (chunk.chunk_number - 1) * CHUNK_BYTES, chunk.content)
        if chunk.chunk_number < chunk.chunks:
            self._write(received=chunk.chunk_number, chunks=chunk.chunks)
        elif file_digest(path) == self._base.files[self._name]:
            self._write(file_number=chunk.file_number + 1, received=0, chunks=0)
        else:
            self.start_over(f"{self._name} came with another hash than the plan's")

    def start_over(self, reason: str) -> None:
        """Delete the file that is coming and ask for it again, unless that was the last attempt."""
        failures = self._progress.failures + 1
        if failures >= MOST_ATTEMPTS:
            self.give_up(reason)
            return
        _log.warning("base model: a file starts over", base=self._base.name, reason=reason, failures=failures)
        self._write(received=0, chunks=0, failures=failures)
        (self.folder / self._name).unlink(missing_ok=True)

    def give_up(self, reason: str) -> None:
        """Delete all that came, and ask for no more."""
        _log.error("base model: given up", base=self._base.name, reason=reason)
        self._write(file_number=1, received=0, chunks=0, failures=MOST_ATTEMPTS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def move_to(self, place: Path) -> None:
        """Put the whole base in its place, in one step."""
        self.folder.rename(place)
        sync_folder(place.parent)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget everything, failures too."""
        self._note.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._progress = self._begin

    @property
    def _name(self) -> str:
        return self._names[self._progress.file_number - 1]

    def _write(self, **changes: int) -> None:
        progress = self._progress.model_copy(update=changes)
        write_sealed(self._note, progress.model_dump(mode="json"))
        # Only now: had the write failed, the object must not believe more than the disk holds.
        self._progress = progress

    def _read(self) -> _Progress:
        """What the note says, as far as it can be believed."""
        try:
            progress, _ = read_entry(self._note, _Progress, _unfit, self._is_ours)
        except IntegrityError as error:
            _log.warning("base model: asked for from the start", base=self._base.name, reason=error.message)
            return self._begin
        if self._holds(progress):
            return progress
        return self._begin.model_copy(update={"failures": progress.failures})

    def _is_ours(self, progress: _Progress) -> bool:
        return progress.plan_digest == self._begin.plan_digest and progress.file_number <= len(self._names) + 1

    def _holds(self, progress: _Progress) -> bool:
        """Whether the folder holds what the note says; a file's content is checked when it is whole."""
        whole = self._names[: progress.file_number - 1]
        if not all((self.folder / name).is_file() for name in whole):
            return False
        if progress.received == 0:
            return True
        path = self.folder / self._names[progress.file_number - 1]
        return path.is_file() and path.stat().st_size >= progress.received * CHUNK_BYTES


def _unfit(rule: str) -> IntegrityError:
    return IntegrityError(f"the note of how far the base model has come {rule}")


def _write_at(path: Path, offset: int, content: Bytes) -> None:
    """Write from `offset` on, drop what stood behind it, and wait for the disk."""
    # Never through a link, and only for the owner, like everything in a site's home.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(handle, "wb") as stream:
        stream.truncate(offset)
        stream.seek(offset)
        stream.write(np.ascontiguousarray(content).data)
        stream.flush()
        os.fsync(handle)
    if offset == 0:
        sync_folder(path.parent)
