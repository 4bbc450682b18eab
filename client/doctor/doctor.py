"""`cloister-site doctor`: everything that can be wrong at a hospital, as one list of checks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from client.doctor.files import (
    audit_findings,
    base_findings,
    coordinator_findings,
    inbox_findings,
    key_findings,
    ledger_findings,
    plan_findings,
    settings_findings,
)
from client.doctor.mechanism import gradient_findings, mask_findings, noise_findings
from client.doctor.network import listening_findings, proxy_findings, reach_findings
from client.home import SiteHome
from common.checkup import Check
from common.errors import IntegrityError, TransportError
from common.findings import Finding
from common.machine import room_finding, stack_findings

_DAMAGE, _NETWORK = IntegrityError.exit_code, TransportError.exit_code


def site_checks(home: SiteHome, now: datetime, *, offline: bool = False, deep: bool = False) -> tuple[Check, ...]:
    """What to look at, from the files to the network; each takes less than two seconds once torch is loaded.

    Guarantees:
        Nothing in the home is changed, and it may be looked at while the node runs. No record is read. Nothing leaves
        but one request that says nothing, and that only without `offline`.

    Args:
        home: The site's home.
        now: The clock, in UTC.
        offline: Leave out what needs the coordinator.
        deep: Hash every base model, and look at gradients on real ones; takes minutes.
    """
    return (
        *_file_checks(home, now, deep=deep),
        *_machine_checks(home, deep=deep),
        *_network_checks(home, now, offline),
    )


def _file_checks(home: SiteHome, now: datetime, *, deep: bool) -> Iterator[Check]:
    yield Check("permissions", home.check_permissions)
    yield Check("settings", lambda: settings_findings(home))
    yield Check("keys", lambda: key_findings(home), _DAMAGE)
    yield Check("coordinator", lambda: coordinator_findings(home, now))
    yield Check("ledger", lambda: ledger_findings(home, now))
    yield Check("audit log", lambda: audit_findings(home), _DAMAGE)
    yield Check("inbox", lambda: inbox_findings(home), _DAMAGE)
    yield Check("plans", lambda: plan_findings(home, now), _DAMAGE)
    yield Check("base models", lambda: base_findings(home, deep=deep), _DAMAGE)


def _machine_checks(home: SiteHome, *, deep: bool) -> Iterator[Check]:
    yield Check("libraries", lambda: stack_findings("site"))
    yield Check("gradients", lambda: gradient_findings(home, deep=deep), _DAMAGE)
    yield Check("masks", mask_findings, _DAMAGE)
    yield Check("noise", noise_findings, _DAMAGE)
    yield Check("disk", lambda: _one(room_finding(home.path)))
    yield Check("ports", lambda: listening_findings(home))


def _network_checks(home: SiteHome, now: datetime, offline: bool) -> Iterator[Check]:
    yield Check("proxy", lambda: proxy_findings(home))
    if not offline:
        yield Check("coordinator's port", lambda: reach_findings(home, now), _NETWORK)


def _one(finding: Finding) -> tuple[Finding, ...]:
    return (finding,)
