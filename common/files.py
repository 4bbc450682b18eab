"""Durable files: a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `content` in one step that survives a crash.

    The bytes are written beside the target, synced, renamed over it, and the folder is synced, so that after a power
    cut the file holds either all of the old bytes or all of the new ones.

    Args:
        path: Target file; its folder must exist.
        content: The whole new content.
        mode: Permission bits of the new file.
    """
    with _written_beside(path, content, mode) as draft:
        draft.replace(path)
    sync_folder(path.parent)


def write_new_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Make `path` with `content` in one step that survives a crash, unless something is there already.

    Raises:
        FileExistsError: When the path exists, even if it was made a moment ago by somebody else; it is not touched.
    """
    with _written_beside(path, content, mode) as draft:
        # Unlike a rename, a link never takes the place of another file.
        path.hardlink_to(draft)
        draft.unlink()
    sync_folder(path.parent)


@contextmanager
def _written_beside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A synced file in the target's folder, under a name of its own; removed where what follows fails."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(mode)
        yield draft
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
