"""Files that only their owner may read: checked at each reading, never replaced by accident."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from common.errors import ConfigError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_OTHERS = 0o077


def read_private_file(path: Path, limit_bytes: int) -> bytes:
    """Read a small secret, unless others may read it too.

    Edge cases:
        What is looked at is the open file, so that nobody can exchange it in between. A named pipe or a device is
        refused, not waited for.

    Raises:
        ConfigError: When it is missing, not a plain file, open to others, or larger than `limit_bytes`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "restore it from a backup, or make this home anew by `init`"
        raise ConfigError(f"the file {path} cannot be read: {error.strerror}", hint=hint) from None
    try:
        _refuse_unfit(path, os.fstat(handle), limit_bytes)
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read(limit_bytes)
    finally:
        os.close(handle)


def _refuse_unfit(path: Path, status: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a plain file", hint="restore it from a backup")
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS:
        rule = f"has mode {mode:04o}, so that others may use the key in it"
        raise ConfigError(f"the file {path} {rule}", hint=f"chmod 600 {shlex.quote(str(path))}")
    if status.st_size > limit_bytes:
        raise ConfigError(
            f"the file {path} has {status.st_size} bytes and may have {limit_bytes}", hint="restore it from a backup"
        )


def open_to_others(path: Path) -> int | None:
    """A path's mode where anybody but its owner has a right to it, else None; symbolic links are followed."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return mode if mode & _OTHERS else None
