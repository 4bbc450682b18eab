"""What `cloister-coordinator doctor` sees in a home: settings, keys, certificates, sites, plans, books.

Everything is read as the service reads it, and nothing is written.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from common.audit import verify_audit
from common.base_files import find_base, is_copy
from common.checkup import audit_log_findings
from common.enrolment import federation_id
from common.errors import ConfigError, IntegrityError
from common.findings import Finding, counted
from common.identity import public_name
from common.key_files import read_ec_key, read_identity
from common.machine import clock_finding
from common.plan import BaseIdentity
from server.certificates import certificate_findings
from server.config import load_coordinator_config
from server.enrolment import enrolled
from server.home import CoordinatorHome
from server.sequences import Sequences
from server.signed_plans import signed_plans, sites_of

HASHED_BYTES = 256 * 2**20
"""A base model up to this size is hashed without `--deep`: about half a second."""

_DATABASE_SECONDS = 1.5
_STEPS = 100_000
_BACKUP = "restore it from a backup"


def settings_findings(home: CoordinatorHome) -> Iterator[Finding]:
    """Whether coordinator.toml is sound, and the files that it names are there."""
    config = load_coordinator_config(home.config)
    yield Finding("pass", "settings", f"coordinator.toml of {config.name} at {config.address} is sound")
    public = (*config.public.validation_files, *config.public.test_files)
    for path in public:
        if not path.is_file():
            yield Finding("fail", "settings", f"[public] names {path}, which is not there", "correct coordinator.toml")
    if config.base is not None:
        find_base(config.base)


def key_findings(home: CoordinatorHome) -> Iterator[Finding]:
    """Whether every key can be read, fits its certificate, and the authority has issued the other two.

    Raises:
        ConfigError: When a key is missing or open to others.
        IntegrityError: When one is damaged, or keys and certificates do not belong together.
    """
    read_identity(home.identity_key)
    authority = _certificate(home.ca_certificate)
    pairs = {
        home.ca_key: home.ca_certificate,
        home.server_key: home.server_certificate,
        home.superlink_key: home.superlink_certificate,
    }
    for key, path in pairs.items():
        _check_pair(key, path, authority)
    yield Finding("pass", "keys", "identity, authority and both certificates fit, and this account alone reads them")


def _check_pair(key: Path, path: Path, authority: x509.Certificate) -> None:
    certificate = _certificate(path)
    if certificate.public_key() != read_ec_key(key, ec.SECP256R1).public_key():
        raise IntegrityError(f"{path} is not the certificate of {key}", hint="restore both from one backup")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise IntegrityError(f"{path} was not issued by this authority", hint="cloister-coordinator renew") from None


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise IntegrityError(f"{path} is missing, or no certificate", hint=_BACKUP) from None


def time_findings(home: CoordinatorHome, now: datetime) -> Iterator[Finding]:
    """Whether each certificate is valid for a while, and the gateway's for the address of the settings."""
    yield from certificate_findings(home, load_coordinator_config(home.config).address, now)


def site_findings(home: CoordinatorHome) -> Iterator[Finding]:
    """Whether each enrolled site's file is whole and of this coordinator."""
    names = [site.name for site in enrolled(home)]
    yield Finding("pass", "sites", f"{len(names)} are enrolled" + (f": {', '.join(names)}" if names else ""))


def audit_findings(home: CoordinatorHome, now: datetime) -> Iterator[Finding]:
    """Whether the audit log holds together, and the clock stands after its last line."""
    report = verify_audit(home.audit, home.audit_anchor, public_name(read_identity(home.identity_key)))
    yield from audit_log_findings(report)
    last = report.entries[-1].time if report.entries else None
    yield clock_finding(now, None if last is None else datetime.fromisoformat(last))


def sequence_findings(home: CoordinatorHome) -> Iterator[Finding]:
    """Whether the numbers of requests are whole and this federation's."""
    public = public_name(read_identity(home.identity_key))
    Sequences(home.sequences, federation_id(load_coordinator_config(home.config).name, public))
    begun = "can be read" if home.sequences.exists() else "begin with the first run"
    yield Finding("pass", "sequences", f"the numbers of requests {begun}")


def database_findings(home: CoordinatorHome) -> Iterator[Finding]:
    """Whether the SuperLink's database is whole, as far as that shows within a moment."""
    path = home.superlink_database
    if not path.exists():
        yield Finding("pass", "database", "the SuperLink makes its database at the first start")
        return
    try:
        fault = _database_fault(path)
    except sqlite3.OperationalError as error:
        yield Finding("warn", "database", f"{path.name} was not checked to the end: {error}", "look again later")
        return
    except sqlite3.DatabaseError:
        fault = "it is no database"
    if fault is None:
        yield Finding("pass", "database", f"{path.name} is whole")
    else:
        mend = f"stop the service and move {path.name} away; finished rounds are in the run folders"
        yield Finding("fail", "database", f"{path.name} is damaged: {fault}", mend)


def _database_fault(path: Path) -> str | None:
    """The first fault that SQLite names, or None."""
    end = time.monotonic() + _DATABASE_SECONDS
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=1.0, uri=True)) as connection:
        connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if said == "ok" else str(said)


def plan_findings(home: CoordinatorHome, now: datetime, *, deep: bool) -> Iterator[Finding]:
    """Whether each plan is this coordinator's, its roster enrolled, and its base the one of the settings.

    Args:
        home: The coordinator's home.
        now: The clock.
        deep: Hash the base however large it is.
    """
    plans = signed_plans(home)
    running = [signed for signed in plans if signed.is_valid_at(now)]
    yield Finding("pass", "plans", f"{counted(len(plans), 'plan')} signed, {len(running)} valid now")
    for signed in running:
        try:
            sites_of(home, signed)
        except ConfigError as error:
            yield Finding("warn", "plans", f"{signed.plan.name}: {error.message}", error.hint)
    yield from _base_findings(home, {signed.plan.base.digest: signed.plan.base for signed in running}, deep=deep)


def _base_findings(home: CoordinatorHome, named: dict[str, BaseIdentity], *, deep: bool) -> Iterator[Finding]:
    config = load_coordinator_config(home.config)
    if not named or config.base is None:
        return
    folder = find_base(config.base)
    size = sum((folder / name).stat().st_size for name in named[next(iter(named))].files if (folder / name).is_file())
    if size > HASHED_BYTES and not deep:
        sentence = f"{size / 2**30:.1f} GiB in {folder} were not hashed"
        yield Finding("warn", "base model", sentence, "cloister-coordinator doctor --deep")
        return
    for base in named.values():
        if is_copy(folder, base):
            yield Finding("pass", "base model", f"every file of {base.name} has the hash that its plans name")
        else:
            rule = f"{folder} is not the base {base.digest[:12]}… that a valid plan names"
            yield Finding("fail", "base model", rule, "restore the folder that the plan was made with")
