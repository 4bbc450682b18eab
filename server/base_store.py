"""The coordinator's copy of a plan's base, handed out chunk by chunk to sites that lack it."""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

import numpy as np

from common.base_files import check_index, file_names
from common.canonical import file_digest
from common.errors import ConfigError, IntegrityError, RefusedError
from common.fields import CHUNK_BYTES
from common.plan import Plan
from common.study_messages import BaseChunk, BaseNeed

_Stamp = tuple[int, ...]


class BaseStore:
    """Reads chunks of the files that a plan's base names, and of no other.

    Guarantees:
        Every file had the plan's hash before its first chunk is handed out; a file that was exchanged or changed since
        is hashed once more before the next one. Only one chunk is in memory at a time, however large the base.

    Edge cases:
        An empty file has one chunk without bytes. A file that changes while it is read may give a wrong chunk: the site
        checks what it received against the same hash, and asks again. Symbolic links are followed, since model folders
        are often made of them.

    Args:
        folder: Where the files are.
        plan: Its base names them and their hashes.

    Raises:
        ConfigError: When a file is missing, not a plain file, or of a name that no base may have.
        IntegrityError: When a file is not the one that the plan names.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan_digest = plan.digest
        self._base = plan.base
        self._names = file_names(plan.base)
        self._stamps: dict[str, _Stamp] = {}
        for name in self._names:
            self._verify(name)
        check_index(folder, plan.base)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum((self._folder / name).stat().st_size for name in self._names)

    @property
    def chunk_count(self) -> int:
        """Chunks of all files; an empty one has one."""
        sizes = ((self._folder / name).stat().st_size for name in self._names)
        return sum(max(1, -(-size // CHUNK_BYTES)) for size in sizes)

    def fraction_before(self, need: BaseNeed) -> float:
        """How much of the base lies before the chunk that a site lacks, from 0 to 1."""
        earlier = sum((self._folder / name).stat().st_size for name in self._names[: max(0, need.file_number - 1)])
        return (earlier + max(0, need.chunk_number - 1) * CHUNK_BYTES) / max(1, self.size_bytes)

    def answer(self, need: BaseNeed) -> BaseChunk | None:
        """The chunk that a site lacks; None when it lacks nothing or has given up.

        Raises:
            RefusedError: When there is no such chunk, or the site asks for another plan's.
            ConfigError: When the file has gone.
            IntegrityError: When the file was changed and is not the plan's any more.
        """
        if need.plan_digest != self._plan_digest:
            raise RefusedError(f"site {need.site} asks for the base of another plan")
        return self.chunk(need.file_number, need.chunk_number) if need.state == "lacking" else None

    def chunk(self, file_number: int, chunk_number: int) -> BaseChunk:
        """A chunk by file and place, both from 1; raises as `answer` does."""
        if not 0 < file_number <= len(self._names):
            raise RefusedError(f"the base has {len(self._names)} files, so there is no file {file_number}")
        name = self._names[file_number - 1]
        with self._open(name) as stream:
            if _stamp_of(stream) != self._stamps[name]:
                self._verify(name)
            chunks = max(1, -(-os.fstat(stream.fileno()).st_size // CHUNK_BYTES))
            if not 0 < chunk_number <= chunks:
                raise RefusedError(f"{name} has {chunks} chunks, so there is no chunk {chunk_number}")
            stream.seek((chunk_number - 1) * CHUNK_BYTES)
            content = np.frombuffer(stream.read(CHUNK_BYTES), dtype=np.uint8)
        return BaseChunk(self._plan_digest, file_number, chunk_number, chunks, content)

    def _verify(self, name: str) -> None:
        """Hash a file, and remember what it looked like before: changed meanwhile, it is hashed again next time."""
        with self._open(name) as stream:
            stamp = _stamp_of(stream)
        if file_digest(self._folder / name) != self._base.files[name]:
            raise IntegrityError(
                f"{name} in {self._folder} is not the file that the plan names for base model {self._base.name}",
                hint="restore the folder that the plan was made with; every byte counts",
            )
        self._stamps[name] = stamp

    def _open(self, name: str) -> BufferedReader:
        path = self._folder / name
        if not path.is_file():
            raise ConfigError(
                f"{name} of base model {self._base.name} is not in {self._folder}",
                hint="restore the folder that the plan was made with",
            )
        return path.open("rb")


def _stamp_of(stream: BufferedReader) -> _Stamp:
    """What changes when a file is exchanged or written to: it costs no reading."""
    status = os.fstat(stream.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
