"""From a site's home folder to everything that its node needs, opened in the order that refuses earliest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from client.acceptance import Acceptance
from client.approvals import check_approvals
from client.base_cache import BaseCache
from client.books import budgets_of
from client.config import SiteConfig, load_site_config
from client.enrolment import Pinned, read_pinned
from client.home import SiteHome
from client.inbox import Inbox
from client.keys import site_identity
from client.ledger.anchor import host_identifier
from client.ledger.ledger import Ledger, open_ledger
from client.ledger.witness import LedgerWitness
from client.rollback import check_books, latest_moment, record_missing
from client.site import Admit, Node, OpenNode, Site
from client.status import StatusBoard
from common.audit import AuditLog, read_audit
from common.errors import ConfigError
from common.findings import Finding
from common.identity import public_name
from common.randomness import RandomSource, SecretSource
from common.signed_plan import SignedPlan

_log = structlog.get_logger()

MakeSource = Callable[[], RandomSource]


@dataclass(frozen=True, eq=False, repr=False)
class OpenSite:
    """A site whose files are open.

    Attributes:
        site: Answers requests.
        config: The hospital's settings.
        pinned: The coordinator.
        audit: The log.
        ledger: The budget's book.
    """

    site: Site
    config: SiteConfig
    pinned: Pinned
    audit: AuditLog
    ledger: Ledger


@contextmanager
def open_site(home: SiteHome, board: StatusBoard, make_source: MakeSource = SecretSource) -> Iterator[OpenSite]:
    """Open a home for its node.

    Guarantees:
        Permissions, settings, keys, approvals, audit log, ledger and inbox are checked before anything else is done;
        whatever is missing, loose, damaged or old is an error here, alone or beside the others, and nothing is begun
        anew in its place.

    Args:
        home: The site's home.
        board: Told what is being made ready.
        make_source: Randomness of draws and noise; tests alone give another than the operating system's.

    Raises:
        ConfigError: When settings or permissions are not fit, or the site's name is not the one that is enrolled.
        IntegrityError, RollbackError: When a kept file is damaged, lost or old.
        TryAgainError: When another process holds the ledger.
    """
    _refuse_loose(home.check_permissions())
    config, identity, pinned = load_site_config(home.config), site_identity(home), read_pinned(home)
    _refuse_other_name(config.name, pinned.invitation.site)
    check_approvals(home)
    audit = AuditLog(home.audit, home.audit_anchor, identity, must_exist=True)
    host = host_identifier(home.keys)
    with open_ledger(home.ledger, home.ledger_anchor, identity, budgets_of(config), host) as ledger:
        inbox = Inbox(
            home.inbox,
            pinned.invitation.federation,
            config.name,
            identity,
            pinned.invitation.coordinator,
            must_exist=True,
        )
        entries = read_audit(home.audit, home.audit_anchor, public_name(identity)).entries
        record_missing(audit, check_books(entries, ledger.entries(), inbox.last_reply))
        ledger.has_seen(latest_moment(entries))
        acceptance = Acceptance(home, config, pinned, identity, ledger, audit)
        site = Site(
            config.name,
            inbox,
            acceptance,
            audit,
            _bases(home, config),
            _nodes(home, acceptance, board, make_source),
            lambda plan, number: board.show("working", plan=plan, round_number=number),
        )
        yield OpenSite(site, config, pinned, audit, ledger)


def _refuse_loose(findings: tuple[Finding, ...]) -> None:
    failed = [finding for finding in findings if finding.level == "fail"]
    if failed:
        raise ConfigError(failed[0].sentence, hint=failed[0].mend)


def _refuse_other_name(name: str, enrolled: str) -> None:
    if name != enrolled:
        raise ConfigError(
            f"site.toml calls this site {name!r}, and the coordinator knows it as {enrolled!r}",
            hint="put the name back: a ledger and an enrolment are for one name",
        )


def _bases(home: SiteHome, config: SiteConfig) -> Callable[[SignedPlan], BaseCache]:
    def open_base(signed: SignedPlan) -> BaseCache:
        return BaseCache(home.bases, signed.plan, config.name, config.base.local, limit_bytes=config.base.limit_bytes)

    return open_base


def _nodes(home: SiteHome, acceptance: Acceptance, board: StatusBoard, make_source: MakeSource) -> OpenNode:
    def open_node(signed: SignedPlan, base: BaseCache, admit: Admit) -> Node:
        # torch and the reader of records come in here, not when a command starts.
        from client.study import StudyParts, open_study  # noqa: PLC0415

        folder = base.find()
        if folder is None:
            raise ConfigError("the plan's base model is not here", hint="the coordinator hands it out")
        witness = LedgerWitness(acceptance.ledger, acceptance.spendings, signed.digest)
        parts = StudyParts(
            plan=signed.plan,
            config=acceptance.config,
            identity=acceptance.identity,
            base=folder,
            folder=home.run(signed.digest),
            begun=witness.begun,
            witness=witness,
            record=acceptance.audit.record,
            say=lambda what: board.show("working", what, plan=signed.digest),
            admit=admit,
            make_source=make_source,
        )
        return open_study(parts)

    return open_node
