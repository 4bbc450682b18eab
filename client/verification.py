"""Does everything that this site keeps hold together? Each book, plan and approval, checked without changing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from client.acceptance import checked_plan
from client.approvals import read_approval
from client.config import load_site_config
from client.enrolment import read_pinned
from client.home import SiteHome
from client.inbox import Inbox
from client.inbox_record import InboxRecord
from client.keys import site_identity
from client.ledger.anchor import host_identifier
from client.ledger.check import read_ledger
from client.node_process import running_node
from client.report import Check
from client.review import read_plan_file
from client.rollback import check_books
from common.audit import verify_audit
from common.audit_events import Joined
from common.errors import CloisterError, IntegrityError
from common.identity import public_name

_BOOKS = frozenset({"ledger", "audit log", "record of requests"})


@dataclass(frozen=True)
class Verified:
    """One thing that was looked at.

    Attributes:
        check: For people, and for the report.
        exit_code: 0 where it holds.
        hint: What to do where it does not.
    """

    check: Check
    exit_code: int = 0
    hint: str = ""


def verify_site(home: SiteHome) -> tuple[Verified, ...]:
    """Check everything that is kept, each whatever the others gave; nothing is changed, and the node may run.

    Guarantees:
        Ledger: every entry's hash, signature and cost, its anchor and its machine. Audit log: every line's hash and
        signature, and its anchor. Each plan was signed by the pinned coordinator, each approval by this site, and each
        lies under the digest that it is about. The books are of one time: none of them was put back without the others.

    Raises:
        ConfigError, IntegrityError: When the site's key cannot be read: nothing can be checked without it.
    """
    public = public_name(site_identity(home))
    looks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("ledger", lambda: _ledger(home, public)),
        ("audit log", lambda: _audit(home, public)),
        ("coordinator", lambda: _coordinator(home)),
        ("record of requests", lambda: _inbox(home, public)),
        ("plans", lambda: _plans(home)),
        ("approvals", lambda: _approvals(home)),
    )
    found = tuple(_verified(what, look) for what, look in looks)
    if any(not one.check.holds for one in found if one.check.what in _BOOKS):
        return found
    if running_node(home) is not None:
        return (*found, _not_compared())
    return (*found, _verified("books together", lambda: _together(home, public)))


def _verified(what: str, look: Callable[[], str]) -> Verified:
    try:
        return Verified(Check(what, holds=True, finding=look()))
    except CloisterError as error:
        return Verified(Check(what, holds=False, finding=error.message), error.exit_code, error.hint)


def _not_compared() -> Verified:
    """A node that runs writes one book after the other: between two of its writes they differ."""
    finding = "not compared now: the node that runs compared them when it opened them, and writes to them"
    return Verified(Check("books together", True, finding, looked=False), hint="cloister-site stop; then verify again")


def _ledger(home: SiteHome, public: str) -> str:
    view = read_ledger(home.ledger, home.ledger_anchor, public, host_identifier(home.keys))
    notes = "".join(f"; {note}" for note in view.state.notes[-1:])
    return (
        f"{_count(len(view.rows), 'entry', 'entries')}, each signed by this site, none missing, each cost right{notes}"
    )


def _audit(home: SiteHome, public: str) -> str:
    report = verify_audit(home.audit, home.audit_anchor, public)
    torn = "; a crash tore the last one, which the next start mends" if report.torn_bytes else ""
    back = f"; the clock went back {report.steps_back} times" if report.steps_back else ""
    return f"{_count(len(report.entries), 'line')}, each signed by this site, none missing{torn}{back}"


def _coordinator(home: SiteHome) -> str:
    if not home.coordinator.exists():
        return "none was accepted yet"
    return f"{read_pinned(home).invitation.federation_name}, pinned by this site"


def _inbox(home: SiteHome, public: str) -> str:
    if not home.coordinator.exists():
        return "not begun yet"
    federation, name = read_pinned(home).invitation.federation, load_site_config(home.config).name
    entries = verify_audit(home.audit, home.audit_anchor, public).entries
    joined = any(isinstance(one.event, Joined) and one.event.federation == federation for one in entries)
    if not home.inbox.exists() and not joined:
        return "not begun: accept the invitation again"
    record = InboxRecord(home.inbox, federation, name, must_exist=True)
    return f"request {record.last_sequence} was the last, {record.answered} the last that was answered"


def _together(home: SiteHome, public: str) -> str:
    entries = verify_audit(home.audit, home.audit_anchor, public).entries
    rows = read_ledger(home.ledger, home.ledger_anchor, public, host_identifier(home.keys)).rows
    missing = check_books(entries, rows, _last_reply(home))
    late = "; a crash left the log one line behind, which the next start mends" if missing else ""
    return f"ledger, audit log and record of requests are of one time{late}"


def _last_reply(home: SiteHome) -> bytes | None:
    if not home.inbox.exists():
        return None
    invitation = read_pinned(home).invitation
    inbox = Inbox(
        home.inbox, invitation.federation, invitation.site, site_identity(home), invitation.coordinator, must_exist=True
    )
    return inbox.last_reply


def _plans(home: SiteHome) -> str:
    paths = sorted(home.plans.glob("*.json"))
    for path in paths:
        signed = checked_plan(read_plan_file(path), read_pinned(home))
        if signed.digest != path.stem:
            raise IntegrityError(f"{path.name} holds another plan than its name says", hint="remove that file")
    return f"{_count(len(paths), 'plan')}, each signed by the pinned coordinator"


def _approvals(home: SiteHome) -> str:
    paths = sorted(home.approvals.glob("*.json"))
    for path in paths:
        if read_approval(home, path.stem) is None:
            raise IntegrityError(f"{path.name} is the approval of another plan or site", hint="remove that file")
    return f"{_count(len(paths), 'approval')}, each signed by this site"


def _count(number: int, word: str, words: str = "") -> str:
    return f"{number:,} {word if number == 1 else words or word + 's'}"
