"""Does everything that this site keeps hold together? Each book, plan and approval, checked without changing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
from common.findings import Level, counted, times
from common.identity import public_name

_SHOWN_DIGITS = 24
_CLOCK = "let a time service keep the clock"


@dataclass(frozen=True)
class Verified:
    """One thing that was looked at.

    Attributes:
        check: For people, and for the report.
        exit_code: 0 where it holds.
        hint: What to do where it does not hold, or where it does and a person should look at something.
        facts: For programs: what the sentence says, whole.
    """

    check: Check
    exit_code: int = 0
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """`warn` where it holds as far as it was looked at, and something is left to do."""
        if not self.check.holds:
            return "fail"
        return "warn" if self.hint or not self.check.looked else "pass"


@dataclass(frozen=True)
class _Seen:
    """What a look at something that holds gave; a hint makes it a warning."""

    finding: str
    hint: str = ""
    looked: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Look:
    """Something to look at, and what must hold before that can tell anything."""

    what: str
    look: Callable[[], _Seen]
    needs: frozenset[str] = frozenset()


def verify_site(home: SiteHome) -> tuple[Verified, ...]:
    """Check everything that is kept, each whatever the others gave; nothing is changed, and the node may run.

    Guarantees:
        Ledger: every entry's hash, signature and cost, its anchor and its machine. Audit log: every line's hash and
        signature, and its anchor. Each plan was signed by the pinned coordinator, each approval by this site, and each
        lies under the digest that it is about. The books are of one time: none of them was put back without the others.

    Edge cases:
        What cannot be checked without something that does not hold is not looked at, and says so: one damaged file is
        one failure.

    Raises:
        ConfigError, IntegrityError: When the site's key cannot be read: nothing can be checked without it.
    """
    public = public_name(site_identity(home))
    found: list[Verified] = []
    for look in _looks(home, public):
        found.append(_verified(look, [one.check.what for one in found if not one.check.holds]))
    return tuple(found)


def _looks(home: SiteHome, public: str) -> tuple[_Look, ...]:
    books = frozenset({"ledger", "audit log", "coordinator", "record of requests"})
    return (
        _Look("ledger", lambda: _ledger(home, public)),
        _Look("audit log", lambda: _audit(home, public)),
        _Look("coordinator", lambda: _coordinator(home)),
        _Look("record of requests", lambda: _inbox(home, public), frozenset({"audit log", "coordinator"})),
        _Look("plans", lambda: _plans(home), frozenset({"coordinator"})),
        _Look("approvals", lambda: _approvals(home)),
        _Look("books together", lambda: _together(home, public), books),
    )


def _verified(look: _Look, broken: Iterable[str]) -> Verified:
    seen = _hindered(look, broken)
    try:
        seen = seen or look.look()
    except CloisterError as error:
        return Verified(Check(look.what, holds=False, finding=error.message), error.exit_code, error.hint)
    return Verified(Check(look.what, holds=True, finding=seen.finding, looked=seen.looked), 0, seen.hint, seen.facts)


def _hindered(look: _Look, broken: Iterable[str]) -> _Seen | None:
    """That a look cannot tell anything, because of something that does not hold; None where nothing is in its way."""
    causes = [what for what in broken if what in look.needs]
    if not causes:
        return None
    return _Seen(f"cannot be told before this holds: {', '.join(causes)}", f"first mend {causes[0]}", looked=False)


def _ledger(home: SiteHome, public: str) -> _Seen:
    view = read_ledger(home.ledger, home.ledger_anchor, public, host_identifier(home.keys))
    notes = "".join(f"; {note}" for note in view.state.notes[-1:])
    finding = f"{counted(len(view.rows), 'entry', 'entries')}, each signed by this site, none missing, each cost right"
    return _Seen(f"{finding}{notes}", _CLOCK if notes else "")


def _audit(home: SiteHome, public: str) -> _Seen:
    report = verify_audit(home.audit, home.audit_anchor, public)
    head = report.head
    torn = "; a crash tore the last one, which the next start mends" if report.torn_bytes else ""
    back = f"; the clock was moved back {times(report.steps_back)}" if report.steps_back else ""
    last = f"; the last is number {head.number}, hash {head.hash[:_SHOWN_DIGITS]}…" if head.number else ""
    return _Seen(
        f"{counted(head.number, 'line')}, each signed by this site, none missing{torn}{back}{last}",
        _CLOCK if back else "",
        facts={"head": {"number": head.number, "hash": head.hash}, "public_key": public},
    )


def _coordinator(home: SiteHome) -> _Seen:
    if not home.coordinator.exists():
        return _Seen("none was accepted yet")
    return _Seen(f"{read_pinned(home).invitation.federation_name}, pinned by this site")


def _inbox(home: SiteHome, public: str) -> _Seen:
    if not home.coordinator.exists():
        return _Seen("not begun yet")
    federation, name = read_pinned(home).invitation.federation, load_site_config(home.config).name
    entries = verify_audit(home.audit, home.audit_anchor, public).entries
    joined = any(isinstance(one.event, Joined) and one.event.federation == federation for one in entries)
    if not home.inbox.exists() and not joined:
        return _Seen("not begun", "accept the invitation again")
    record = InboxRecord(home.inbox, federation, name, must_exist=True)
    return _Seen(f"request {record.last_sequence} was the last, {record.answered} the last that was answered")


def _together(home: SiteHome, public: str) -> _Seen:
    if running_node(home) is not None:  # it writes one book after the other: between two of its writes they differ
        finding = "not compared now: the node that runs compared them when it opened them, and writes to them"
        return _Seen(finding, "cloister-site stop; then verify again", looked=False)
    entries = verify_audit(home.audit, home.audit_anchor, public).entries
    rows = read_ledger(home.ledger, home.ledger_anchor, public, host_identifier(home.keys)).rows
    missing = check_books(entries, rows, _last_reply(home))
    late = "; a crash left the log one line behind, which the next start mends" if missing else ""
    return _Seen(f"ledger, audit log and record of requests are of one time{late}")


def _last_reply(home: SiteHome) -> bytes | None:
    if not home.inbox.exists():
        return None
    invitation = read_pinned(home).invitation
    inbox = Inbox(
        home.inbox, invitation.federation, invitation.site, site_identity(home), invitation.coordinator, must_exist=True
    )
    return inbox.last_reply


def _plans(home: SiteHome) -> _Seen:
    paths = sorted(home.plans.glob("*.json"))
    for path in paths:
        signed = checked_plan(read_plan_file(path), read_pinned(home))
        if signed.digest != path.stem:
            raise IntegrityError(f"{path.name} holds another plan than its name says", hint="remove that file")
    return _Seen(f"{counted(len(paths), 'plan')}, each signed by the pinned coordinator")


def _approvals(home: SiteHome) -> _Seen:
    paths = sorted(home.approvals.glob("*.json"))
    for path in paths:
        if read_approval(home, path.stem) is None:
            raise IntegrityError(f"{path.name} is the approval of another plan or site", hint="remove that file")
    return _Seen(f"{counted(len(paths), 'approval')}, each signed by this site")
