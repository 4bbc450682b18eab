"""A site's home folder: where each thing lies, on this machine and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from common.findings import Finding
from common.homes import make_home, permission_findings

_FOLDERS = ("keys", "plans", "approvals", "runs", "bases")


def default_home() -> Path:
    """Where a site's home lies unless it is told otherwise."""
    return user_data_path("cloister") / "site"


@dataclass(frozen=True)
class SiteHome:
    """The paths of a site's home.

    Attributes:
        path: The home itself; 0700, as is each folder in it.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The site's own settings and limits."""
        return self.path / "site.toml"

    @property
    def keys(self) -> Path:
        """The folder of all secrets, each 0600."""
        return self.path / "keys"

    @property
    def identity_key(self) -> Path:
        """Ed25519, 32 raw bytes: who this site is."""
        return self.keys / "identity.key"

    @property
    def node_key(self) -> Path:
        """EC P-384 in PEM: the site's key for Flower's node authentication."""
        return self.keys / "node.key"

    @property
    def join_request(self) -> Path:
        """The request that this site sent."""
        return self.path / "join-request.json"

    @property
    def coordinator(self) -> Path:
        """The pinned invitation."""
        return self.path / "coordinator.json"

    @property
    def ledger(self) -> Path:
        """The privacy budget's book."""
        return self.path / "ledger.sqlite"

    @property
    def ledger_anchor(self) -> Path:
        """How far the ledger has come, so that an older copy is noticed."""
        return self.keys / "ledger.anchor"

    @property
    def audit(self) -> Path:
        """What left this site, and who decided what."""
        return self.path / "audit.jsonl"

    @property
    def audit_anchor(self) -> Path:
        """How far the audit log has come."""
        return self.keys / "audit.anchor"

    @property
    def inbox(self) -> Path:
        """The last envelope taken and its answer."""
        return self.path / "inbox.record"

    @property
    def plans(self) -> Path:
        """Signed plans, by digest."""
        return self.path / "plans"

    @property
    def approvals(self) -> Path:
        """What a person here approved, by digest."""
        return self.path / "approvals"

    @property
    def runs(self) -> Path:
        """A folder for each plan that ran."""
        return self.path / "runs"

    @property
    def bases(self) -> Path:
        """Pretrained bases, checked against a plan's hashes."""
        return self.path / "bases"

    @property
    def lock(self) -> Path:
        """Held by the one node that runs here."""
        return self.path / "node.lock"

    @property
    def node_number(self) -> Path:
        """Flower's number of this node, as the coordinator's SuperLink gave it last."""
        return self.path / "node.number"

    @property
    def status(self) -> Path:
        """What the node is doing, for `status`."""
        return self.path / "status.json"

    @property
    def paused(self) -> Path:
        """There while the hospital has paused its node."""
        return self.path / "paused"

    def plan(self, digest: str) -> Path:
        """The file of one signed plan."""
        return self.plans / f"{digest}.json"

    def approval(self, digest: str) -> Path:
        """The file of one approval."""
        return self.approvals / f"{digest}.json"

    def run(self, digest: str) -> Path:
        """The folder of one plan's run; made by whoever runs it."""
        return self.runs / digest

    def create(self, fill: Callable[[SiteHome], None] | None = None) -> None:
        """Make this home; with `fill`, also its first files, all in one step or not at all.

        Raises:
            ConfigError: When something is there already: nothing is ever overwritten.
        """
        make_home(self.path, _FOLDERS, lambda draft: fill(SiteHome(draft)) if fill else None)

    def check_permissions(self) -> tuple[Finding, ...]:
        """Who else may reach folders and keys, with the command that mends it."""
        return permission_findings(self.path, _FOLDERS)
