"""From a coordinator's home and a plan's digest to a run: its folder, its transport, its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from common.audit import AuditLog
from common.enrolment import federation_id
from common.errors import CloisterError, ConfigError, IntegrityError, UsageError
from common.file_lock import locked
from common.files import write_durably
from common.identity import public_name
from common.key_files import read_identity
from common.private_files import PRIVATE_FILE, PRIVATE_FOLDER
from common.signed_plan import SignedPlan, read_signed_plan, write_signed_plan
from common.transport import Transport
from server.checkpoint import CHECKPOINT_NAME
from server.conduct import RunParts, conduct
from server.config import WaitingConfig, load_coordinator_config
from server.enrolment import EnrolledSite, enrolled
from server.envelopes import SealedTransport
from server.home import CoordinatorHome
from server.pacing import PacedTransport, Patient
from server.progress import PhaseProgress, Progress
from server.results import RunReport
from server.sequences import Sequences

SIGNED_PLAN_NAME = "signed-plan.json"
_LOCK_NAME = ".lock"


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
    with _alone(folder), _told(folder):
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


def enough_sites(signed: SignedPlan) -> int:
    """Sites without which no round of a plan can succeed."""
    plan = signed.plan
    return max(plan.parameters.threshold if plan.masked else 1, plan.minimum_sites)


def find_signed_plan(home: CoordinatorHome, digest: str) -> SignedPlan:
    """A plan that this coordinator signed, by its digest or the beginning of it.

    Raises:
        UsageError: When none or several fit.
        IntegrityError: When the file was changed.
    """
    found = sorted(home.plans.glob(f"{digest}*.json")) if digest.isalnum() else []
    if len(found) != 1:
        rule = "no signed plan" if not found else "more than one signed plan"
        raise UsageError(
            f"{rule} has a digest that begins with {digest!r}", hint="`cloister-coordinator plan list` shows them"
        )
    signed = read_signed_plan(found[0].read_bytes())
    if signed.coordinator != public_name(read_identity(home.identity_key)):
        raise IntegrityError(f"{found[0].name} was signed by another coordinator", hint="remove it, and sign your own")
    return signed


def sites_of(home: CoordinatorHome, signed: SignedPlan) -> tuple[EnrolledSite, ...]:
    """The enrolled sites of a plan's roster.

    Raises:
        ConfigError: When one is not enrolled, or with another key than the roster's.
    """
    known = {site.name: site for site in enrolled(home)}
    for name, public in signed.plan.roster.items():
        if name not in known or known[name].public != public:
            raise ConfigError(
                f"site {name} of the plan's roster is not enrolled with that key",
                hint="enrol it again, or sign a plan for the sites that are enrolled",
            )
    return tuple(known[name] for name in sorted(signed.plan.roster))


def prepare_folder(home: CoordinatorHome, signed: SignedPlan, *, resume: bool) -> Path:
    """The run's folder, made where it is missing.

    Raises:
        UsageError: When it holds finished rounds and `resume` is not set.
        IntegrityError: When it belongs to another plan with the same beginning of its digest.
    """
    folder = home.run(signed.plan.name, signed.digest)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    kept, document = folder / SIGNED_PLAN_NAME, write_signed_plan(signed)
    if kept.exists() and read_signed_plan(kept.read_bytes()).digest != signed.digest:
        raise IntegrityError(f"{folder} belongs to another plan", hint="move it away")
    if (folder / CHECKPOINT_NAME).exists() and not resume:
        raise UsageError(
            f"{folder} already holds finished rounds of this plan",
            hint="`run --resume` goes on from there; a plan runs once",
        )
    write_durably(kept, document, mode=PRIVATE_FILE)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder / _LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with locked(handle, 0.0):
            yield
    finally:
        os.close(handle)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Whatever ends a run is told in its folder: nobody sees this process' own output."""
    progress = Progress(folder)
    try:
        yield
    except CloisterError as error:
        progress.tell(PhaseProgress("failed", error.message, error.hint, error.exit_code))
        raise
    except OSError as error:
        sentence = f"a file could not be read or written: {error.strerror}"
        progress.tell(PhaseProgress("failed", sentence, "is the disk full? `run --resume` goes on", 1))
        raise
