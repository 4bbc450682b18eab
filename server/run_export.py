"""A finished run's result as a folder of its own, to be handed on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from common.errors import UsageError
from common.files import sync_folder
from server.run_files import ADAPTER_NAME, CARD_NAME, CURVE_NAME, RESULTS_NAME, SIGNED_PLAN_NAME
from server.runs import Run

_NAMES = (ADAPTER_NAME, CARD_NAME, CURVE_NAME, RESULTS_NAME, SIGNED_PLAN_NAME)


def export_run(run: Run, folder: Path, *, dry_run: bool = False) -> tuple[str, ...]:
    """Copy what others may have of a run; nothing else of the coordinator's is in it.

    Guarantees:
        The folder appears whole or not at all, and nothing is ever overwritten.

    Args:
        run: A finished one.
        folder: Must not exist; the folder that it is made in must.
        dry_run: Look only.

    Returns:
        Names of what the folder has, or would have.

    Raises:
        UsageError: When the folder exists, or has no place to be made in.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists, and nothing is overwritten", hint="choose another --output")
    if not folder.parent.is_dir():
        raise UsageError(f"{folder.parent} is no folder", hint="make it, or choose another --output")
    names = tuple(name for name in _NAMES if (run.folder / name).exists())
    if not dry_run:
        _copy(run, names, folder)
    return names


def _copy(run: Run, names: tuple[str, ...], folder: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name in names:
            source = run.folder / name
            if source.is_dir():
                shutil.copytree(source, draft / name, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(source, draft / name)
        draft.chmod(0o755)
        draft.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
