"""Home folders: made whole or not at all, never over another, closed to everybody else."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from common.errors import ConfigError
from common.files import sync_folder
from common.findings import Finding
from common.private_files import PRIVATE_FOLDER, open_to_others

_CERTIFICATE = ".pem"


def make_home(path: Path, folders: Iterable[str], fill: Callable[[Path], None]) -> None:
    """Make a home with everything in it appear in one step.

    Guarantees:
        It is put together beside its place and renamed to it, so that a crash or a full disk leaves no half of it
        there. A folder with anything in it is never touched.

    Args:
        path: Where it shall be; may be an empty folder.
        folders: Names of its folders; each, and the home, is 0700.
        fill: Writes the first files into the folder that it is given.

    Raises:
        ConfigError: When something is there already, or the place cannot be written.
    """
    try:
        _refuse_existing(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))  # 0700 by its nature
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        for name in folders:
            (draft / name).mkdir(mode=PRIVATE_FOLDER)
        fill(draft)
        sync_folder(draft)
        draft.rename(path)  # refused by the system, where somebody made a home there meanwhile
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_existing(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ConfigError(f"{path} is not a folder", hint="choose another place by `--home`")
    if path.is_dir() and any(path.iterdir()):
        raise ConfigError(
            f"the folder {path} is not empty, and a home is never made over another",
            hint="use what is there, or choose another place by `--home`",
        )


def _unwritable(path: Path, error: OSError) -> ConfigError:
    # A volume cannot be renamed over, but a folder in it can be made.
    hint = "choose another place by `--home`, such as a folder inside that one"
    return ConfigError(f"the home {path} cannot be made: {error.strerror}", hint=hint)


def permission_findings(home: Path, folders: Iterable[str]) -> tuple[Finding, ...]:
    """One finding for each folder and key that others may reach, or one that none is.

    Edge cases:
        Certificates (`.pem`) are public. A missing folder is a finding; a missing key is the business of its reader.
    """
    found = tuple(_findings(home, folders))
    return found or (Finding("pass", "permissions", f"only their owner may read the keys and folders of {home}"),)


def _findings(home: Path, folders: Iterable[str]) -> Iterator[Finding]:
    for folder in (home, *(home / name for name in folders)):
        if not folder.is_dir():
            yield Finding("fail", "permissions", f"the folder {folder} is missing", "make a home by `init`")
        else:
            yield from _finding(folder, "700")
    for path in sorted((home / "keys").glob("*")):
        if path.suffix != _CERTIFICATE and path.exists():
            yield from _finding(path, "600")


def _finding(path: Path, closed: str) -> Iterator[Finding]:
    mode = open_to_others(path)
    if mode is not None:
        mend = f"chmod {closed} {shlex.quote(str(path))}"
        yield Finding("fail", "permissions", f"{path} has mode {mode:04o}, so that others may reach it", mend)
