"""The coordinator's state on disk, so that a run killed at any moment goes on from its last finished round.

One safetensors file holds the arrays; its metadata hold everything else as canonical JSON, with a SHA-256 over both.
The file is replaced in one step (`common.files.write_durably`), so there is always a whole one, and an older copy
beside it would add nothing but a way to resume from the wrong round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import IntegrityError
from server.sealed_arrays import Arrays, read_arrays, write_arrays
from server.state import BestModel, Evaluation, GlobalModel, RoundSummary, ServerState, as_json

CHECKPOINT_NAME = "checkpoint.safetensors"
FORMAT_VERSION = 1


def save_checkpoint(folder: Path, state: ServerState, plan_digest: str) -> None:
    """Replace the folder's checkpoint in one durable step.

    Args:
        folder: Run folder; must exist.
        state: Of the round that has just finished.
        plan_digest: The plan that the run belongs to.
    """
    document = {"format_version": FORMAT_VERSION, "plan_digest": plan_digest, **_document(state)}
    write_arrays(folder / CHECKPOINT_NAME, _arrays(state), document)


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
    return arrays


def _document(state: ServerState) -> dict[str, Any]:
    best = state.best
    return {
        "moments": sorted(state.moments),
        "recent": len(state.recent),
        "best": None if best is None else {"round_number": best.round_number, "loss": best.loss},
        "history": [as_json(summary) for summary in state.history],
    }


def _unseal(content: bytes, path: Path) -> tuple[dict[str, Any], Arrays]:
    found = read_arrays(content)
    if found is None:
        raise IntegrityError(
            f"checkpoint {path} is damaged: its content does not match its checksum",
            hint="restore it from a backup; sites stay charged for what they did, so do not start over lightly",
        )
    arrays, document = found
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
