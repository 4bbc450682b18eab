"""What the running service tells other commands: its process, since when, and which sites are connected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from common.file_lock import holder
from common.files import write_durably
from common.private_files import PRIVATE_FILE
from server.home import CoordinatorHome


@dataclass(frozen=True)
class ServiceStatus:
    """A service as it last described itself.

    Attributes:
        pid: Its process.
        since: When it started, as `2026-11-21T15:04:05Z`.
        ready: Whether hospitals can connect.
        online: Whether each enrolled site was connected at the last look.
    """

    pid: int
    since: str
    ready: bool = False
    online: Mapping[str, bool] = field(default_factory=dict)


def write_status(home: CoordinatorHome, status: ServiceStatus) -> None:
    """Keep it for others to read."""
    text = json.dumps(asdict(status), ensure_ascii=False, indent=2)
    write_durably(home.status, text.encode("utf-8"), mode=PRIVATE_FILE)


def read_status(home: CoordinatorHome) -> ServiceStatus | None:
    """The service that runs in a home; None where none does, whatever a killed one has left behind."""
    pid = service_process(home)
    if pid is None:
        return None
    try:
        status = ServiceStatus(**json.loads(home.status.read_bytes()))
    except (OSError, ValueError, TypeError):
        return ServiceStatus(pid, "")
    return status if status.pid == pid else ServiceStatus(pid, "")


def service_process(home: CoordinatorHome) -> int | None:
    """The process of the service that runs in a home: the one that holds its lock, and no other."""
    return holder(home.lock) or None
