"""Durable files: a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `content` in one step that survives a crash.

    The bytes are written beside the target, synced, renamed over it, and the folder is synced, so that after a power
    cut the file holds either all of the old bytes or all of the new ones.

    Args:
        path: Target file; its folder must exist.
        content: The whole new content.
        mode: Permission bits of the new file.

    Raises:
        OSError: When the disk does not take it; it names `path`, whatever the step that failed.
    """
    with naming(path):
        with _written_beside(path, content, mode) as draft:
            draft.replace(path)
        sync_folder(path.parent)


def write_together(contents: Mapping[Path, bytes], mode: int = 0o644) -> None:
    """Replace several files, once all of their new contents are on disk: a full disk leaves every old one.

    Edge cases:
        A power cut between two of the renames leaves some of the files new and some old, each of them whole.

    Args:
        contents: The whole new content of each file; their folders must exist.
        mode: Permission bits of the new files.

    Raises:
        OSError: When the disk does not take one of them; it names that one.
    """
    with ExitStack() as stack:
        drafts: dict[Path, Path] = {}
        for path, content in contents.items():
            with naming(path):
                drafts[path] = stack.enter_context(_written_beside(path, content, mode))
        for path, draft in drafts.items():
            with naming(path):
                draft.replace(path)
                sync_folder(path.parent)


def write_new_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Make `path` with `content` in one step that survives a crash, unless something is there already.

    Raises:
        OSError: As `write_durably`.
        FileExistsError: When the path exists, even if it was made a moment ago by somebody else; it is not touched.
    """
    with naming(path):
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


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; the ones that were made here go again where what follows fails."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for one in made:
            with suppress(OSError):  # something else lies in it by now, or it was never made
                one.rmdir()
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of the system name the file that a reader knows: it names none, or a draft beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise
