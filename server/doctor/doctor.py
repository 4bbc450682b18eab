"""`cloister-coordinator doctor`: everything that can be wrong at a coordinator, as one list of checks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from common.checkup import Check
from common.errors import IntegrityError, TransportError
from common.findings import Finding
from common.machine import room_finding, stack_findings
from server.doctor.files import (
    audit_findings,
    database_findings,
    key_findings,
    plan_findings,
    sequence_findings,
    settings_findings,
    site_findings,
    time_findings,
)
from server.doctor.network import executable_findings, gateway_findings, port_findings
from server.home import CoordinatorHome

_DAMAGE, _NETWORK = IntegrityError.exit_code, TransportError.exit_code


def coordinator_checks(home: CoordinatorHome, now: datetime, *, deep: bool = False) -> tuple[Check, ...]:
    """What to look at, from the files to the network; each takes less than two seconds.

    Guarantees:
        Nothing in the home is changed, and it may be looked at while the service runs. Nothing leaves this machine: the
        one call goes to its own gateway.

    Args:
        home: The coordinator's home.
        now: The clock, in UTC.
        deep: Hash the base model, however large it is.
    """
    return (*_file_checks(home, now, deep=deep), *_machine_checks(home))


def _file_checks(home: CoordinatorHome, now: datetime, *, deep: bool) -> Iterator[Check]:
    yield Check("permissions", home.check_permissions)
    yield Check("settings", lambda: settings_findings(home))
    yield Check("keys", lambda: key_findings(home), _DAMAGE)
    yield Check("certificates", lambda: time_findings(home, now), _NETWORK)
    yield Check("sites", lambda: site_findings(home), _DAMAGE)
    yield Check("audit log", lambda: audit_findings(home, now))
    yield Check("sequences", lambda: sequence_findings(home), _DAMAGE)
    yield Check("database", lambda: database_findings(home), _DAMAGE)
    yield Check("plans", lambda: plan_findings(home, now, deep=deep), _DAMAGE)


def _machine_checks(home: CoordinatorHome) -> Iterator[Check]:
    yield Check("libraries", lambda: stack_findings("coordinator"))
    yield Check("Flower", executable_findings)
    yield Check("disk", lambda: _one(room_finding(home.path)))
    yield Check("ports", lambda: port_findings(home), _NETWORK)
    yield Check("gateway", lambda: gateway_findings(home), _NETWORK)


def _one(finding: Finding) -> tuple[Finding, ...]:
    return (finding,)
