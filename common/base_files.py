"""The files of a pretrained base: where they lie, what they may be called, and which base they are.

Nothing here loads a model, so that coordinator and site can look for a base, and pass it on, without torch.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path

import structlog

from common.canonical import file_digest
from common.config_file import PACKAGE_PREFIX
from common.errors import ConfigError, IntegrityError
from common.plan import BaseIdentity

_log = structlog.get_logger()

FEATURE_MAP_NAME = "feature_map.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_CONFIG_NAME = "config.json"
_INDEX_LIMIT_BYTES = 16 << 20
_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors")
_OTHER_FILES = (
    INDEX_NAME,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
)


def find_base(reference: str) -> Path:
    """The folder of a base: a path, or `package:NAME/FOLDER` inside an installed Python package.

    Raises:
        ConfigError: When there is no such folder, or it holds no `config.json` and safetensors weights.
    """
    folder = _package_folder(reference) if reference.startswith(PACKAGE_PREFIX) else Path(reference).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"base model folder {reference} does not exist", hint="give a local Hugging Face encoder folder"
        )
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"{reference} is an adapter, not a base model", hint="give the folder of the base it was trained on"
        )
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ConfigError(
            f"{reference} lacks config.json or safetensors weights",
            hint="only safetensors are read; convert other weights with save_pretrained(..., safe_serialization=True)",
        )
    return folder


def _package_folder(reference: str) -> Path:
    package, _, inside = reference.removeprefix(PACKAGE_PREFIX).partition("/")
    try:
        # A dotted name is refused: finding it would run the code of the package around it.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):  # what is loaded under that name is no package
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"Python package {package} is not installed",
            hint="the demo's model comes with: pip install 'cloister[demo]'",
        )
    return Path(spec.submodule_search_locations[0]) / inside


def identify_base(folder: Path, name: str) -> BaseIdentity:
    """Name and SHA-256 of every file that decides what the base computes."""
    return BaseIdentity(name=name, files={name: file_digest(folder / name) for name in _deciding_names(folder)})


def _deciding_names(folder: Path) -> list[str]:
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    return [_CONFIG_NAME, *weights, *(name for name in _OTHER_FILES if (folder / name).is_file())]


def file_names(base: BaseIdentity) -> tuple[str, ...]:
    """Names of a base's files in order; a file's number on the wire is its place here, from 1.

    Guarantees:
        Each is a plain name that a base may have: `config.json`, `NAME.safetensors`, and a few more texts. None has a
        separator or begins with a dot, none is code or a pickle, and `adapter_config.json`, which would have another
        model loaded, is not among them.

    Raises:
        ConfigError: When the plan names any other file; a base with it is neither handed out nor taken in.
    """
    for name in base.files:
        if name not in (_CONFIG_NAME, *_OTHER_FILES) and _WEIGHTS.fullmatch(name) is None:
            raise ConfigError(
                f"base model {base.name} has a file named {name!r}, which no base may have",
                hint=f"a base is {_CONFIG_NAME}, *.safetensors and, if need be, {', '.join(_OTHER_FILES)}",
            )
    return tuple(sorted(base.files))


def find_copy(references: Iterable[str], base: BaseIdentity) -> Path | None:
    """The first folder whose files are the base's, compared by their hashes; None where there is none.

    Args:
        references: Folders, as `find_base` takes them; one that does not exist is passed over.
        base: The plan's base.

    Raises:
        IntegrityError: When the weights' index leads out of the folder, see `check_index`.
    """
    for reference in references:
        try:
            folder = find_base(reference)
        except ConfigError as error:
            _log.info("no base model there", reference=reference, reason=error.message)
            continue
        if is_copy(folder, base):
            return folder
    return None


def is_copy(folder: Path, base: BaseIdentity) -> bool:
    """Whether the folder has exactly the base's files; names first, since hashing takes seconds a gigabyte."""
    if sorted(_deciding_names(folder)) != sorted(base.files):
        return False
    if not all((folder / name).is_file() and file_digest(folder / name) == base.files[name] for name in base.files):
        return False
    check_index(folder, base)
    return True


def check_index(folder: Path, base: BaseIdentity) -> None:
    """Refuse an index of weights that names a file beyond the base's own.

    An index says which file holds which weight, and loading follows it: `../../model.safetensors` would be read from
    elsewhere on the disk, with a hash that nobody has agreed to.

    Raises:
        IntegrityError: When it does, or is no index.
    """
    if INDEX_NAME in base.files and not _index_is_fit(folder / INDEX_NAME, base):
        raise IntegrityError(
            f"{INDEX_NAME} of base model {base.name} names a file that the plan does not",
            hint="do not use this base: its weights would be read from files that nobody has agreed to",
        )


def _index_is_fit(path: Path, base: BaseIdentity) -> bool:
    if path.stat().st_size > _INDEX_LIMIT_BYTES:
        return False
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    files = index.get("weight_map") if isinstance(index, dict) else None
    return isinstance(files, dict) and all(isinstance(name, str) and name in base.files for name in files.values())
