"""What `cloister-site doctor` sees in a home: settings, keys, the pin, the books, plans, approvals and bases.

Everything is read as the node reads it, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from client.acceptance import checked_plan
from client.approvals import read_approval
from client.config import load_site_config
from client.enrolment import read_pinned
from client.home import SiteHome
from client.inbox_record import InboxRecord
from client.keys import node_key, site_identity
from client.ledger.anchor import host_identifier
from client.ledger.check import read_ledger
from common.armour import TEXT_LIMIT
from common.audit import verify_audit
from common.authority import check_authority_time
from common.base_files import identify_base, is_copy
from common.checkup import audit_log_findings
from common.documents import read_document_file
from common.enrolment import JoinRequest
from common.errors import IntegrityError
from common.findings import Finding, counted
from common.identity import public_name
from common.machine import clock_finding
from common.node_key import public_pem
from common.signed_plan import SIGNED_PLAN_LIMIT_BYTES, SignedPlan

WARNING_DAYS = 30
HASHED_BYTES = 256 * 2**20
"""So many bytes of base models are hashed without `--deep`: about half a second."""

_NOT_ENROLLED = Finding(
    "warn", "coordinator", "this site has accepted no invitation", "cloister-site request, then accept the invitation"
)


def is_enrolled(home: SiteHome) -> bool:
    """Whether a coordinator is pinned, soundly or not."""
    return home.coordinator.exists()


def settings_findings(home: SiteHome) -> Iterator[Finding]:
    """Whether site.toml is sound, its data files are there, and its name is the pinned one."""
    config = load_site_config(home.config)
    yield Finding("pass", "settings", f"site.toml of {config.name} is sound")
    missing = [str(path) for path in config.train_files if not path.is_file()]
    if missing:
        yield Finding("fail", "settings", f"data.train names {missing[0]}, which is not there", "correct site.toml")
    if is_enrolled(home) and config.name != read_pinned(home).invitation.site:
        rule = f"site.toml says {config.name}, and the coordinator knows this site as another name"
        yield Finding("fail", "settings", rule, "put the name back: plans and envelopes go by it")


def key_findings(home: SiteHome) -> Iterator[Finding]:
    """Whether both keys can be read, and are those that this site asked and was enrolled with."""
    identity, node = site_identity(home), node_key(home)
    if home.join_request.exists():
        asked = read_document_file(JoinRequest, home.join_request, "join request", TEXT_LIMIT)
        if (asked.identity, asked.node_key) != (public_name(identity), public_pem(node)):
            rule = "the keys are not those that this site asked to join with"
            yield Finding("fail", "keys", rule, "restore keys/ from the backup that belongs to this home")
            return
    yield Finding("pass", "keys", "identity and node key can be read, by this account alone")


def coordinator_findings(home: SiteHome, now: datetime) -> Iterator[Finding]:
    """Whether the pinned invitation is whole, this site's, and its certificate authority valid for a while."""
    if not is_enrolled(home):
        yield _NOT_ENROLLED
        return
    invitation = read_pinned(home).invitation
    check_authority_time(invitation.ca_certificate, now)
    last = x509.load_pem_x509_certificate(invitation.ca_certificate.encode("ascii")).not_valid_after_utc
    if last - now < timedelta(days=WARNING_DAYS):
        sentence = f"the certificate authority of {invitation.federation_name} ends on {last:%Y-%m-%d}"
        yield Finding("warn", "coordinator", sentence, "ask the coordinator for a new invitation")
    else:
        yield Finding("pass", "coordinator", f"{invitation.federation_name} at {invitation.address} is pinned")


def ledger_findings(home: SiteHome, now: datetime) -> Iterator[Finding]:
    """Whether the privacy budget's book is whole, this machine's and as new as its anchor; and the clock after it."""
    public, host = public_name(site_identity(home)), host_identifier(home.keys)
    view = read_ledger(home.ledger, home.ledger_anchor, public, host)
    held = counted(len(view.rows), "entry holds", "entries hold")
    yield Finding("pass", "ledger", f"{held} together, and every cost is right")
    yield from (Finding("warn", "ledger", note, "see `cloister-site budget`") for note in view.state.notes)
    yield clock_finding(now, view.state.latest_time)


def audit_findings(home: SiteHome) -> Iterator[Finding]:
    """Whether the audit log holds together from its first line to its last."""
    yield from audit_log_findings(verify_audit(home.audit, home.audit_anchor, public_name(site_identity(home))))


def inbox_findings(home: SiteHome) -> Iterator[Finding]:
    """Whether the record of requests is there and whole, with the kept answer."""
    if not is_enrolled(home):
        return
    invitation = read_pinned(home).invitation
    record = InboxRecord(home.inbox, invitation.federation, invitation.site, must_exist=True)
    record.kept_reply()
    yield Finding("pass", "inbox", f"the last request was number {record.last_sequence}")


def plan_findings(home: SiteHome, now: datetime) -> Iterator[Finding]:
    """Whether each kept plan is the pinned coordinator's, and each approval this site's own."""
    if not is_enrolled(home):
        return
    plans = kept_plans(home)
    digests = [path.stem for path in sorted(home.approvals.glob("*.json"))]
    strange = [digest for digest in digests if read_approval(home, digest) is None]
    for digest in strange:
        rule = f"the approval {digest[:12]}… is of another site or plan"
        yield Finding("fail", "approvals", rule, f"remove approvals/{digest}.json, and approve the plan again")
    valid = sum(plan.is_valid_at(now) for plan in plans)
    kept = counted(len(plans), "plan is", "plans are")
    sentence = f"{kept} kept, {valid} of them valid now, and {len(digests) - len(strange)} approved"
    yield Finding("pass", "plans", sentence)


def kept_plans(home: SiteHome) -> tuple[SignedPlan, ...]:
    """Every plan in the home.

    Raises:
        IntegrityError: When one was changed, or is not the pinned coordinator's.
    """
    pinned = read_pinned(home)
    return tuple(_plan(path, checked_plan(_bounded(path), pinned)) for path in sorted(home.plans.glob("*.json")))


def _bounded(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(SIGNED_PLAN_LIMIT_BYTES + 1)


def _plan(path: Path, signed: SignedPlan) -> SignedPlan:
    if path.stem != signed.digest:
        raise IntegrityError(
            f"{path.name} holds the plan {signed.digest[:12]}…",
            hint="remove it: the coordinator offers its plans again",
        )
    return signed


def base_findings(home: SiteHome, *, deep: bool) -> Iterator[Finding]:
    """Whether each base model that the coordinator sent still has the hashes that plans name.

    Args:
        home: The site's home.
        deep: Hash everything, however long it takes; else only so much as takes a moment.
    """
    named = {signed.plan.base.digest: signed.plan.base for signed in kept_plans(home)} if is_enrolled(home) else {}
    for folder in sorted(path for path in home.bases.glob("[!.]*") if path.is_dir()):
        mend = f"remove bases/{folder.name}: the coordinator sends it again"
        base, size = named.get(folder.name), sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        if size > HASHED_BYTES and not deep:
            sentence = f"{folder.name[:12]}… has {size / 2**30:.1f} GiB, which were not hashed"
            yield Finding("warn", "base models", sentence, "cloister-site doctor --deep")
        elif is_copy(folder, base) if base is not None else identify_base(folder, "base").digest == folder.name:
            yield Finding("pass", "base models", f"every file of {folder.name[:12]}… has its hash")
        else:
            yield Finding("fail", "base models", f"a file of {folder.name[:12]}… is not what it was", mend)
