"""The coordinator's state on disk, so that a run killed at any moment goes on from its last finished round.

One safetensors file holds the arrays; its metadata hold everything else as canonical JSON, with a SHA-256 over both.
The file is replaced in one step (`common.files.write_durably`), so there is always a whole one, and an older copy
beside it would add nothing but a way to resume from the wrong round.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.canonical import canonical_bytes
from common.errors import IntegrityError
from common.files import write_durably
from server.state import BestModel, Evaluation, GlobalModel, RoundSummary, ServerState, as_json

CHECKPOINT_NAME = "checkpoint.safetensors"
FORMAT_VERSION = 1

_METADATA_KEY = "cloister"
_LENGTH_BYTES = 8

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


def save_checkpoint(folder: Path, state: ServerState, plan_digest: str) -> None:
    """Replace the folder's checkpoint in one durable step.

    Args:
        folder: Run folder; must exist.
        state: Of the round that has just finished.
        plan_digest: The plan that the run belongs to.
    """
    arrays = _arrays(state)
    document = {"format_version": FORMAT_VERSION, "plan_digest": plan_digest, **_document(state)}
    sealed = canonical_bytes({"document": document, "sha256": _seal(document, arrays)})
    write_durably(folder / CHECKPOINT_NAME, save(arrays, {_METADATA_KEY: sealed.decode("ascii")}))


def load_checkpoint(folder: Path, plan_digest: str) -> ServerState | None:
    """Read the folder's checkpoint.

    Guarantees:
        What is returned is what was saved, bit for bit; anything else is an error and never a silent restart.

    Edge cases:
        None when there is no checkpoint: no round was finished there.

    Raises:
        IntegrityError: When it is damaged, cut short, of another format or of another plan.
    """
    path = folder / CHECKPOINT_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    document, arrays = _unseal(content, path)
    if document["format_version"] != FORMAT_VERSION:
        raise IntegrityError(
            f"checkpoint {path} has format version {document['format_version']}, not {FORMAT_VERSION}",
            hint="resume the run with the version of Cloister that began it",
        )
    if document["plan_digest"] != plan_digest:
        raise IntegrityError(
            f"checkpoint {path} belongs to plan {document['plan_digest'][:12]}, not to plan {plan_digest[:12]}",
            hint="resume with the plan that began the run, or start this plan in another folder",
        )
    return _state(document, arrays)


def _arrays(state: ServerState) -> Arrays:
    arrays: Arrays = {"weights": state.model.weights, "basis": state.model.basis}
    arrays.update({f"moment.{name}": values for name, values in state.moments.items()})
    arrays.update({f"recent.{position}": values for position, values in enumerate(state.recent)})
    if state.best is not None:
        arrays.update({"best.weights": state.best.model.weights, "best.basis": state.best.model.basis})
    # safetensors writes the memory as it lies, so a view with strides would be written in the wrong order.
    return {name: np.ascontiguousarray(values) for name, values in arrays.items()}


def _document(state: ServerState) -> dict[str, Any]:
    best = state.best
    return {
        "moments": sorted(state.moments),
        "recent": len(state.recent),
        "best": None if best is None else {"round_number": best.round_number, "loss": best.loss},
        "history": [as_json(summary) for summary in state.history],
    }


def _seal(document: Mapping[str, Any], arrays: Arrays) -> str:
    """SHA-256 over everything that is read back: the document, and name, type, shape and bytes of each array."""
    hasher = hashlib.sha256(canonical_bytes(document))
    for name, values in sorted(arrays.items()):
        hasher.update(canonical_bytes([name, values.dtype.str, list(values.shape)]))
        hasher.update(values.tobytes())
    return hasher.hexdigest()


def _unseal(content: bytes, path: Path) -> tuple[dict[str, Any], Arrays]:
    try:
        arrays = load(content)
        header_end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES:header_end])
        sealed = json.loads(header["__metadata__"][_METADATA_KEY])
        document, seal = sealed["document"], sealed["sha256"]
        whole = seal == _seal(document, arrays)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        whole, document, arrays = False, {}, {}
    if not whole:
        raise IntegrityError(
            f"checkpoint {path} is damaged: its content does not match its checksum",
            hint="restore it from a backup; sites stay charged for what they did, so do not start over lightly",
        )
    return document, arrays


def _state(document: Mapping[str, Any], arrays: Arrays) -> ServerState:
    best = document["best"]
    return ServerState(
        model=_model(arrays),
        moments={name: arrays[f"moment.{name}"] for name in document["moments"]},
        recent=tuple(arrays[f"recent.{position}"] for position in range(document["recent"])),
        best=None if best is None else BestModel(**best, model=_model(arrays, "best.")),
        history=tuple(_summary(item) for item in document["history"]),
    )


def _model(arrays: Arrays, prefix: str = "") -> GlobalModel:
    return GlobalModel(arrays[f"{prefix}weights"], arrays[f"{prefix}basis"])


def _summary(item: Mapping[str, Any]) -> RoundSummary:
    validation = item["validation"]
    return RoundSummary(**{**item, "validation": None if validation is None else _evaluation(validation)})


def _evaluation(item: Mapping[str, Any]) -> Evaluation:
    metrics = {name: math.nan if value is None else value for name, value in item["metrics"].items()}
    return Evaluation(math.nan if item["loss"] is None else item["loss"], metrics)
