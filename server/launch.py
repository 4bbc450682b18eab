"""From a coordinator's home and a plan's digest to a run: its folder, its transport, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from common.audit import AuditLog
from common.enrolment import federation_id
from common.errors import CloisterError, ConfigError
from common.file_lock import alone
from common.identity import public_name
from common.key_files import read_identity
from common.transport import Transport
from server.conduct import RunParts, conduct
from server.config import WaitingConfig, load_coordinator_config
from server.enrolment import EnrolledSite
from server.envelopes import SealedTransport
from server.home import CoordinatorHome
from server.pacing import PacedTransport, Patient
from server.progress import PhaseProgress, Progress
from server.results import RunReport
from server.run_files import LOCK_NAME
from server.sequences import Sequences
from server.signed_plans import enough_sites, find_signed_plan, prepare_folder, sites_of

_MOST_PROBLEMS = 5
"""More would be no line to read."""


class Network(Transport, Patient, Protocol):
    """What carries sealed orders, and can be told how long to wait."""


OpenNetwork = Callable[[tuple[EnrolledSite, ...], WaitingConfig], Network]
"""Reaches these sites."""


def launch(
    home: CoordinatorHome,
    digest: str,
    open_network: OpenNetwork,
    *,
    resume: bool = False,
    wait_for_all: bool = True,
) -> RunReport:
    """Conduct a signed plan in the coordinator's home.

    Args:
        home: Whose plan, keys and settings count.
        digest: Of a plan in it.
        open_network: How sites are reached.
        resume: Go on from the last finished round.
        wait_for_all: Whether the first round waits for sites that may still come when enough are ready.

    Raises:
        UsageError: When there is no such plan, or it has run already and `resume` is not set.
        TryAgainError: When another process conducts it.
        CloisterError: As `server.conduct.conduct`.
    """
    config, signed = load_coordinator_config(home.config), find_signed_plan(home, digest)
    folder = prepare_folder(home, signed, resume=resume)
    # One run at a time: sites take the requests of a federation in one order, so that two runs would only refuse.
    with alone(home.runs / LOCK_NAME), alone(folder / LOCK_NAME), _told(folder):
        identity = read_identity(home.identity_key)
        audit = AuditLog(home.audit, home.audit_anchor, identity, must_exist=True)
        sites = sites_of(home, signed)
        network = open_network(sites, config.waiting)
        federation = federation_id(config.name, public_name(identity))
        publics = {site.name: site.public for site in sites}
        sealed = SealedTransport(network, identity, federation, publics, Sequences(home.sequences, federation))
        enough = enough_sites(signed)
        transport = PacedTransport(sealed, network, config.waiting, enough)
        return conduct(RunParts(signed, config, folder, transport, audit, enough, resume, wait_for_all))


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Whatever error ends a run is told in its folder: nobody sees this process' own output."""
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # a full disk takes no line either, and must not hide why
            Progress(folder).tell(_end_of(error))
        raise


def _end_of(error: Exception) -> PhaseProgress:
    """An error as people are told of it."""
    if isinstance(error, CloisterError):
        return PhaseProgress("failed", *_with_problems(error), error.exit_code)
    if isinstance(error, OSError):
        sentence = f"a file could not be read or written: {error.strerror or type(error).__name__}"
        return PhaseProgress("failed", sentence, "is the disk full? `run --resume` goes on", 1)
    sentence = f"the run ended with an error that nobody foresaw ({type(error).__name__})"
    return PhaseProgress("failed", sentence, "superlink.log shows where; `run --resume` goes on", 1)


def _with_problems(error: CloisterError) -> tuple[str, str]:
    """Sentence and hint of an error, with what is wrong in detail: whoever is told has nothing but these two."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    told = [str(problem) for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        told.append(f"and {len(problems) - _MOST_PROBLEMS} more")
    hints = dict.fromkeys((*(problem.hint for problem in problems[:_MOST_PROBLEMS]), error.hint))
    sentence = f"{error.message}: {'; '.join(told)}" if told else error.message
    return sentence, "; ".join(hint for hint in hints if hint)
