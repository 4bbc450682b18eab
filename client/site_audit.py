"""A site's audit log, for commands that write one event into it, also while the node runs."""

from __future__ import annotations

from client.home import SiteHome
from client.keys import site_identity
from common.audit import AuditLog
from common.audit_events import AuditEvent


def open_audit(home: SiteHome) -> AuditLog:
    """The log that was begun with the site.

    Raises:
        ConfigError, IntegrityError, RollbackError, TryAgainError: As `common.audit.AuditLog`.
    """
    return AuditLog(home.audit, home.audit_anchor, site_identity(home), must_exist=True)


def note(home: SiteHome, event: AuditEvent) -> None:
    """Write one event; it is durable when this returns.

    Raises:
        IntegrityError, RollbackError, TryAgainError, OSError: As `common.audit.AuditLog.record`.
    """
    open_audit(home).record(event)
