"""What the node is doing, for `cloister-site status`: one small file, replaced at each change."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog
from pydantic import ValidationError

from common.config import StrictConfig
from common.private_files import PRIVATE_FILE

_log = structlog.get_logger()

Doing = Literal["connecting", "waiting", "working", "paused", "stopped", "failed"]


class NodeStatus(StrictConfig):
    """A snapshot.

    Attributes:
        doing: What the node does now.
        since: Since when, in UTC, as `2026-11-21T15:04:05Z`.
        pid: Its process.
        detail: A sentence for people at the hospital: what is being made ready, or what went wrong.
        plan: Digest of the plan that the last request was about; empty before the first.
        round_number: Of that request; 0 outside rounds.
    """

    doing: Doing
    since: str
    pid: int
    detail: str = ""
    plan: str = ""
    round_number: int = 0


class StatusBoard:
    """Writes the snapshots; losing one in a power cut or on a full disk costs nothing, so they are not synced.

    Args:
        path: The file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = NodeStatus(doing="connecting", since=_now(), pid=os.getpid())

    def show(self, doing: Doing, detail: str = "", *, plan: str | None = None, round_number: int = 0) -> None:
        """Replace the snapshot; `plan` None keeps the plan and round of the last request."""
        last = self._last
        since = last.since if doing == last.doing else _now()
        about, number = (last.plan, last.round_number) if plan is None else (plan, round_number)
        self._last = NodeStatus(
            doing=doing, since=since, pid=os.getpid(), detail=detail, plan=about, round_number=number
        )
        try:
            self._write()
        except OSError as error:
            _log.warning("the status cannot be written", reason=error.strerror)

    def _write(self) -> None:
        draft = self._path.with_suffix(".draft")
        draft.touch(mode=PRIVATE_FILE)
        draft.write_text(json.dumps(self._last.model_dump(mode="json")), encoding="ascii")
        draft.replace(self._path)


def read_status(path: Path) -> NodeStatus | None:
    """The last snapshot; None where there is none that can be read."""
    try:
        return NodeStatus.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
