"""start, status: the service that hospitals connect to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version

from common.audit import AuditLog
from common.audit_events import Started, Stopped
from common.command_line import say, stdout
from common.enrolment import fingerprint
from common.errors import CloisterError, TryAgainError
from common.file_lock import alone
from common.identity import public_name
from common.key_files import read_identity
from common.moments import current_moment, moment_text
from server.commands.options import HomeOption, JsonOption, open_audit, open_home, print_json
from server.config import CoordinatorConfig
from server.enrolment import enrolled
from server.home import CoordinatorHome
from server.progress import RoundProgress, SiteProgress
from server.run_words import next_step, phase_words, round_words, site_words
from server.runs import Run, Standing, current_run, runs_of, standing_of
from server.service_status import ServiceStatus, read_status, service_process, write_status


def start(home: HomeOption = None) -> None:
    """Let hospitals connect: run the SuperLink and the gateway in the foreground until Ctrl-C or SIGTERM.

    It says when hospitals can connect, and which of them come and go. `run` and `stop` are given in another terminal.

    Example: `cloister-coordinator start`
    """
    from server.service import Service

    chosen, config = open_home(home)
    _refuse_second(chosen)
    with alone(chosen.lock):
        audit, stop = open_audit(chosen), threading.Event()
        announcer = _Announcer(chosen, config)
        service = Service(chosen, config, audit, stop, announcer.ready, announcer.sites)
        with _stopped_by_signals(stop), _noted(audit):
            say("starting the SuperLink …")
            service.run()
    say("stopped")


def _refuse_second(home: CoordinatorHome) -> None:
    pid = service_process(home)
    if pid is not None:
        raise TryAgainError(
            f"the service runs already, as process {pid}", hint="`cloister-coordinator stop --service` ends it"
        )


@dataclass
class _Announcer:
    """Says on stderr, and keeps in the home, what the service tells."""

    home: CoordinatorHome
    config: CoordinatorConfig
    status: ServiceStatus = field(init=False)

    def __post_init__(self) -> None:
        import os

        self.status = ServiceStatus(os.getpid(), moment_text(current_moment()))
        write_status(self.home, self.status)

    def ready(self) -> None:
        count = len(enrolled(self.home))
        self._keep(replace(self.status, ready=True))
        told = f"{count} {'site is' if count == 1 else 'sites are'} enrolled"
        say(f"hospitals can connect to {self.config.address}; {told}; Ctrl-C stops the service")

    def sites(self, online: Mapping[str, bool]) -> None:
        before = self.status.online
        for name, here in online.items():
            if here != before.get(name, False):
                say(f"{moment_text(current_moment())}  {name} {'is connected' if here else 'is no longer connected'}")
        self._keep(replace(self.status, online=dict(online)))

    def _keep(self, status: ServiceStatus) -> None:
        self.status = status
        write_status(self.home, status)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set the event; a second one does no more than the first."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _noted(audit: AuditLog) -> Iterator[None]:
    audit.record(Started(part="coordinator", version=version("cloister")))
    try:
        yield
    except BaseException as error:
        code = error.exit_code if isinstance(error, CloisterError) else 1
        audit.record(Stopped(part="coordinator", reason="failed", exit_code=code))
        raise
    audit.record(Stopped(part="coordinator", reason="signal"))


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the service, the hospitals that are connected, and the run: how far it is, and why a site holds it up.

    Example: `cloister-coordinator status` · `watch cloister-coordinator status`
    """
    chosen, config = open_home(home)
    service = read_status(chosen)
    run = current_run(chosen) or next(iter(runs_of(chosen)), None)
    if as_json:
        print_json(_as_json(chosen, config, service, run))
        return
    out = stdout()
    for line in (*_service_lines(chosen, config, service), *(_run_lines(run) if run else ("run          none yet",))):
        out.print(line, markup=False, soft_wrap=True)


def _service_lines(home: CoordinatorHome, config: CoordinatorConfig, service: ServiceStatus | None) -> Iterator[str]:
    yield f"federation   {config.name}, at {config.address}"
    yield f"fingerprint  {fingerprint(public_name(read_identity(home.identity_key)))}"
    if service is None:
        yield "service      not running; `cloister-coordinator start` lets hospitals connect"
    else:
        state = "hospitals can connect" if service.ready else "starting"
        yield f"service      process {service.pid}, since {service.since or 'a moment ago'}; {state}"
    names = [site.name for site in enrolled(home)]
    here = [name for name in names if service is not None and service.online.get(name)]
    away = [name for name in names if name not in here]
    yield f"sites        {len(names)} enrolled, {len(here)} connected{': ' + ', '.join(here) if here else ''}"
    if service is not None and away:
        yield f"             not connected: {', '.join(away)}"


def _run_lines(run: Run) -> Iterator[str]:
    standing = standing_of(run)
    yield f"run          {run.name}: {_phase(run, standing)}"
    if standing.last_round is not None:
        yield f"             {round_words(standing.last_round, run.signed.plan)}"
    if standing.phase is not None and (hint := next_step(standing.phase, run.signed.digest)):
        yield f"             hint: {hint}"
    for site in standing.sites.values():
        if site.state != "ready" or standing.last_round is None:
            yield f"             {site.site}: {site_words(site)}"


def _phase(run: Run, standing: Standing) -> str:
    if run.is_finished:
        return "finished; `cloister-coordinator report` shows the result"
    if standing.phase is None:
        return "starting" if run.is_conducted else "not begun"
    if standing.phase.phase in ("preparing", "gathering", "training"):
        if not run.is_conducted:
            return f"interrupted while {standing.phase.phase}; `run {run.signed.digest[:8]} --resume` goes on"
        return standing.phase.phase
    return phase_words(standing.phase)


def _as_json(
    home: CoordinatorHome, config: CoordinatorConfig, service: ServiceStatus | None, run: Run | None
) -> dict[str, object]:
    online = {} if service is None else service.online
    return {
        "federation": config.name,
        "address": config.address,
        "service": None if service is None else {"pid": service.pid, "since": service.since, "ready": service.ready},
        "sites": {site.name: online.get(site.name, False) for site in enrolled(home)},
        "run": None if run is None else _run_json(run),
    }


def _run_json(run: Run) -> dict[str, object]:
    standing = standing_of(run)
    last: RoundProgress | None = standing.last_round
    phase = standing.phase
    return {
        "name": run.name,
        "plan": run.signed.digest,
        "folder": str(run.folder),
        "conducted": run.is_conducted,
        "finished": run.is_finished,
        "phase": None if phase is None else phase.phase,
        "sentence": "" if phase is None else phase.sentence,
        "exit_code": 0 if phase is None else phase.exit_code,
        "round": 0 if last is None else last.round_number,
        "rounds": run.signed.plan.rounds,
        "epsilon": None if last is None else last.epsilon,
        "silent": [] if last is None else list(last.silent),
        "sites": {name: _site_json(site) for name, site in standing.sites.items()},
    }


def _site_json(site: SiteProgress) -> dict[str, object]:
    return {"state": site.state, "codes": list(site.codes), "words": site_words(site), "fraction": site.fraction}
