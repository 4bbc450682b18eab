"""The coordinator's home folder: where each thing lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from common.findings import Finding
from common.homes import make_home, permission_findings

_FOLDERS = ("keys", "sites", "plans", "bases", "runs")


def default_home() -> Path:
    """Where a coordinator's home lies unless it is told otherwise."""
    return user_data_path("cloister") / "coordinator"


@dataclass(frozen=True)
class CoordinatorHome:
    """The paths of a coordinator's home.

    Attributes:
        path: The home itself; 0700, as is each folder in it.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Name, address and timeouts."""
        return self.path / "coordinator.toml"

    @property
    def keys(self) -> Path:
        """The folder of all secrets, each 0600, and of the certificates."""
        return self.path / "keys"

    @property
    def identity_key(self) -> Path:
        """Ed25519, 32 raw bytes: who this coordinator is."""
        return self.keys / "identity.key"

    @property
    def ca_key(self) -> Path:
        """The certificate authority's key, in PEM."""
        return self.keys / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        """What sites trust; stands in each invitation."""
        return self.keys / "ca.pem"

    @property
    def server_key(self) -> Path:
        """The gateway's key, in PEM."""
        return self.keys / "server.key"

    @property
    def server_certificate(self) -> Path:
        """The gateway's certificate, for the address in the config."""
        return self.keys / "server.pem"

    @property
    def superlink_key(self) -> Path:
        """The SuperLink's key, in PEM."""
        return self.keys / "superlink.key"

    @property
    def superlink_certificate(self) -> Path:
        """The SuperLink's certificate, for this machine's loopback only."""
        return self.keys / "superlink.pem"

    @property
    def sites(self) -> Path:
        """Enrolled sites, by name."""
        return self.path / "sites"

    @property
    def plans(self) -> Path:
        """Signed plans, by digest."""
        return self.path / "plans"

    @property
    def bases(self) -> Path:
        """Pretrained bases that sites may ask for."""
        return self.path / "bases"

    @property
    def runs(self) -> Path:
        """A folder for each run."""
        return self.path / "runs"

    @property
    def superlink_database(self) -> Path:
        """The SuperLink's own file."""
        return self.path / "superlink.db"

    @property
    def superlink_log(self) -> Path:
        """What the SuperLink prints."""
        return self.path / "superlink.log"

    @property
    def superlink_process(self) -> Path:
        """The SuperLink's process number, while it runs."""
        return self.path / "superlink.pid"

    @property
    def audit(self) -> Path:
        """Who called, and who decided what."""
        return self.path / "audit.jsonl"

    @property
    def audit_anchor(self) -> Path:
        """How far the audit log has come."""
        return self.keys / "audit.anchor"

    @property
    def sequences(self) -> Path:
        """The last envelope to and from each site."""
        return self.path / "sequences.json"

    @property
    def flower(self) -> Path:
        """Flower's own folder: the bundle of each run, which holds no code."""
        return self.path / "flower"

    @property
    def lock(self) -> Path:
        """Held by the one service that runs here; holds its process number."""
        return self.path / "service.lock"

    @property
    def status(self) -> Path:
        """What that service says of itself and of the sites that are connected."""
        return self.path / "status.json"

    def site(self, name: str) -> Path:
        """The file of one enrolled site; the name must be one that enrolment let pass."""
        return self.sites / f"{name}.json"

    def plan(self, digest: str) -> Path:
        """The file of one signed plan."""
        return self.plans / f"{digest}.json"

    def run(self, name: str, digest: str) -> Path:
        """The folder of one plan's run; made by whoever runs it."""
        return self.runs / f"{name}-{digest[:8]}"

    def create(self, fill: Callable[[CoordinatorHome], None] | None = None) -> None:
        """Make this home; with `fill`, also its first files, all in one step or not at all.

        Raises:
            ConfigError: When something is there already: nothing is ever overwritten.
        """
        make_home(self.path, _FOLDERS, lambda draft: fill(CoordinatorHome(draft)) if fill else None)

    def check_permissions(self) -> tuple[Finding, ...]:
        """Who else may reach folders and keys, with the command that mends it."""
        return permission_findings(self.path, _FOLDERS)
