"""A whole federation on this machine: a coordinator's service and hospitals' nodes, each a process of its own.

Everything is what a coordinator and hospitals run, over TLS on loopback; only enrolment is done by calls, not commands.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from client.approvals import approve
from client.config import load_site_config
from client.enrolment import accept, make_request
from client.home import SiteHome
from client.inbox import Inbox
from client.initialise import initialise as initialise_site
from client.keys import site_identity
from client.ledger.anchor import host_identifier
from client.ledger.recovery import create_ledger
from common.audit import AuditLog
from common.audit_events import AdminCommand
from common.base_files import identify_base
from common.config import parse_config
from common.errors import CloisterError, DeadlineError
from common.key_files import read_identity
from common.moments import current_moment
from common.plan import PlanDraft
from common.signed_plan import SignedPlan
from server.config import load_coordinator_config
from server.enrolment import enrol, enrolled
from server.home import CoordinatorHome
from server.initialise import initialise as initialise_coordinator
from server.planning import finish_plan
from server.runs import Run
from server.service_status import read_status
from server.signed_plans import issue_plan

_BY = "deployment"
_LOOK_SECONDS = 0.01
_START_SECONDS = 120.0
_END_SECONDS = 20.0
_LAST_WORDS = 2000

_COORDINATOR = """
name = "deployed"
address = "127.0.0.1:{gateway}"
base = {base}
base_name = "tiny"

[listen]
host = "127.0.0.1"
superlink_port = {superlink}

[waiting]
{waiting}
"""

_SITE = """
name = "{name}"

[data]
folder = {data}
train = ["rows.csv"]

[policy]
most_epsilon = 1000.0
{policy}

[budget.patient]
epsilon = 1000.0

[base]
local = {local}
"""


@dataclass
class Deployment:
    """Homes of a coordinator and its enrolled sites, and whatever of them runs.

    Guarantees:
        When the block ends, so has every process that was started here, and all that these have started.

    Attributes:
        folder: Where all the homes are.
        coordinator: Home of the coordinator.
        sites: Homes of the sites.
        processes: What was started last, by name: `service`, `run`, or a site's name.
    """

    folder: Path
    coordinator: CoordinatorHome
    sites: Mapping[str, SiteHome]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _logs: ExitStack = field(default_factory=ExitStack)

    def sign(self, draft: Mapping[str, object]) -> SignedPlan:
        """A signed plan for all sites, approved at each of them."""
        config = load_coordinator_config(self.coordinator.config)
        roster = {site.name: site.public for site in enrolled(self.coordinator)}
        base = identify_base(Path(str(config.base)), config.base_name or "tiny")
        plan = finish_plan(parse_config(PlanDraft, draft, "the draft"), len(roster), base, roster)
        signed = issue_plan(self.coordinator, config, plan, current_moment())
        for home in self.sites.values():
            approve(home, signed.digest, _BY, signed.valid_until)
        return signed

    def run_of(self, signed: SignedPlan) -> Run:
        """The run of a plan."""
        return Run(self.coordinator.run(signed.plan.name, signed.digest), signed)

    # --- processes ---

    def start_service(self) -> None:
        """`cloister-coordinator start`; returns when hospitals can connect.

        Raises:
            CloisterError: When it ends instead.
            DeadlineError: When it takes two minutes.
        """
        process = self._start("service", "server.cli", "start", "--home", str(self.coordinator.path))

        def ready() -> bool:
            if process.poll() is not None:
                raise CloisterError(f"the service ended with exit code {process.returncode}", hint=self.said("service"))
            status = read_status(self.coordinator)
            return status is not None and status.ready

        wait_until(ready, "the service to be ready")

    def start_node(self, site: str) -> None:
        """`cloister-site start`; returns at once."""
        self._start(site, "client.cli", "start", "--home", str(self.sites[site].path))

    def start_nodes(self) -> None:
        """One at each site."""
        for site in self.sites:
            self.start_node(site)

    def start_run(self, signed: SignedPlan, *options: str) -> subprocess.Popen[bytes]:
        """`cloister-coordinator run`; its exit code says how the run ended."""
        return self._start("run", "server.cli", "run", signed.digest, "--home", str(self.coordinator.path), *options)

    def superlink(self) -> int:
        """The process of the SuperLink that the service started.

        Raises:
            CloisterError: When none runs.
        """
        found = processes_with(str(self.coordinator.superlink_database))
        if not found:
            raise CloisterError("no SuperLink runs", hint=self.said("service"))
        return found[0]

    def kill(self, name: str) -> None:
        """SIGKILL to what was started under a name, and its end awaited."""
        self.processes[name].kill()
        self.processes[name].wait(_END_SECONDS)

    def said(self, name: str) -> str:
        """The last lines that a process wrote, over all its lives."""
        return self.log(name)[-_LAST_WORDS:]

    def log(self, name: str) -> str:
        """All that a process wrote, over all its lives."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def remains(self) -> list[int]:
        """Processes that are about this federation, whoever started them."""
        return processes_with(str(self.folder))

    def _start(self, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._logs.enter_context((self.folder / f"{name}.log").open("ab"))
        command = [sys.executable, "-c", f"from {module} import main; main()", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": ""}
        root = Path(__file__).parents[1]
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.processes[name] = process
        return process

    def stop(self) -> None:
        """End everything as a person would, and what is left by force."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        for pid in self.remains():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._logs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def wait_until(holds: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    """Look again and again until something holds.

    Raises:
        DeadlineError: When it does not come to hold within so many seconds.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise DeadlineError(f"waited {seconds:g} seconds for {what}", hint="")
        time.sleep(_LOOK_SECONDS)


def processes_with(text: str) -> list[int]:
    """Processes other than this one that have a text on their command line, the oldest first; ended ones have none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if text.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return sorted(found)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def deploy(
    folder: Path,
    base: Path,
    rows: Mapping[str, Path],
    *,
    waiting: Mapping[str, float] | None = None,
    policy: str = "",
) -> Deployment:
    """Initialise, ask, enrol, accept: everything up to the first plan. Nothing is started.

    Args:
        folder: An existing folder, for the homes.
        base: The pretrained model.
        rows: Name of each site to the folder with its `rows.csv`.
        waiting: Of the coordinator's settings `[waiting]`.
        policy: Further lines of each site's `[policy]`.
    """
    gateway, superlink = free_ports(2)
    coordinator = CoordinatorHome(folder / "coordinator")
    initialise_coordinator(coordinator, "deployed", f"127.0.0.1:{gateway}", begin=_begin_audit)
    waits = "\n".join(f"{name} = {value}" for name, value in (waiting or {}).items())
    text = _COORDINATOR.format(gateway=gateway, base=json.dumps(str(base)), superlink=superlink, waiting=waits)
    coordinator.config.write_text(text, encoding="utf-8")
    sites = {
        name: _site(folder / name, _site_text(name, data, base, policy), coordinator) for name, data in rows.items()
    }
    return Deployment(folder, coordinator, sites)


def _site_text(name: str, data: Path, base: Path, policy: str) -> str:
    return _SITE.format(name=name, data=json.dumps(str(data)), local=json.dumps([str(base)]), policy=policy)


def _site(folder: Path, text: str, coordinator: CoordinatorHome) -> SiteHome:
    """One site, from nothing to an accepted invitation."""
    folder.mkdir()
    home = SiteHome(folder / "home")
    initialise_site(home, text, begin=_begin_site)
    invitation = enrol(coordinator, make_request(home, load_site_config(home.config)))
    pinned = accept(home, invitation, None).invitation
    Inbox(home.inbox, pinned.federation, pinned.site, site_identity(home), pinned.coordinator)
    return home


def _begin_audit(home: CoordinatorHome | SiteHome) -> None:
    log = AuditLog(home.audit, home.audit_anchor, read_identity(home.identity_key))
    log.record(AdminCommand(command="init", by=_BY))


def _begin_site(home: SiteHome) -> None:
    create_ledger(home.ledger, home.ledger_anchor, site_identity(home), host_identifier(home.keys))
    _begin_audit(home)
