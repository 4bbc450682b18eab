"""A federation with real homes, keys and files, whose messages are handed over in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from client.approvals import approve
from client.config import load_site_config
from client.enrolment import accept, make_request
from client.home import SiteHome
from client.inbox import Inbox
from client.initialise import initialise as initialise_site
from client.keys import site_identity
from client.ledger.anchor import host_identifier
from client.ledger.recovery import create_ledger
from client.opening import OpenSite, open_site
from client.status import StatusBoard
from common.audit import AuditLog
from common.audit_events import AdminCommand
from common.base_files import identify_base
from common.config import parse_config
from common.enrolment import federation_id
from common.identity import public_name
from common.key_files import read_identity
from common.moments import current_moment
from common.plan import PlanDraft
from common.randomness import RandomSource, SecretSource
from common.signed_plan import SignedPlan, sign_plan, write_signed_plan
from server.enrolment import enrol, enrolled
from server.home import CoordinatorHome
from server.initialise import initialise as initialise_coordinator
from server.launch import launch
from server.pacing import Patience
from server.planning import finish_plan
from server.results import RunReport
from tests.tiny_scenario import write_rows

MakeSource = Callable[[], RandomSource]

DRAFT: Mapping[str, object] = {
    "name": "tiny",
    "rounds": 3,
    "minimum_sites": 3,
    "task": {"labels": ["none", "event"], "positive_label": "event", "max_tokens": 16},
    "adapter": {"rank": 2, "top_layers": 1},
    "privacy": {"noise_multiplier": 1.0, "sampling_rate": 0.5, "divisor": 8.0, "delta": 1e-5},
    "optimizer": {"learning_rate": 0.5},
    "secure_aggregation": {"tolerated_dropouts": 1, "tolerated_colluders": 1, "session_rounds": 4},
}

COORDINATOR = """
name = "play"
address = "127.0.0.1:9999"
base = "{base}"
base_name = "tiny"
"""

SITE_LIMITS = """
name = "{name}"

[data]
folder = "{data}"
train = ["rows.csv"]

[policy]
most_epsilon = 50.0

[budget.patient]
epsilon = 100.0
"""


@dataclass
class Federation:
    """Homes of a coordinator and of its sites, enrolled with each other."""

    coordinator: CoordinatorHome
    sites: dict[str, SiteHome]
    make_source: MakeSource = SecretSource
    stack: ExitStack = field(default_factory=ExitStack)
    opened: dict[str, OpenSite] = field(default_factory=dict)

    def sign(self, draft: Mapping[str, object] = DRAFT, *, approved: bool = True) -> SignedPlan:
        """A signed plan for all sites, approved at each of them."""
        identity = read_identity(self.coordinator.identity_key)
        roster = {site.name: site.public for site in enrolled(self.coordinator)}
        base = identify_base(self.base, "tiny")
        plan = finish_plan(parse_config(PlanDraft, draft, "the draft"), len(roster), base, roster)
        now = current_moment()
        federation = federation_id("play", public_name(identity))
        signed = sign_plan(plan, federation, now, now + timedelta(days=9), identity)
        self.coordinator.plan(signed.digest).write_bytes(write_signed_plan(signed))
        for home in self.sites.values() if approved else ():
            approve(home, signed.digest, "tester", signed.valid_until)
        return signed

    @property
    def base(self) -> Path:
        """The coordinator's base."""
        return self.coordinator.path.parent / "base"

    def open(self, name: str) -> OpenSite:
        """A site, opened from its home once."""
        if name not in self.opened:
            board = StatusBoard(self.sites[name].status)
            self.opened[name] = self.stack.enter_context(open_site(self.sites[name], board, self.make_source))
        return self.opened[name]

    def close(self) -> None:
        """Close every site, as a stop does; the next request opens it anew."""
        self.opened.clear()
        self.stack.close()
        self.stack = ExitStack()

    def run(self, signed: SignedPlan, *, resume: bool = False) -> RunReport:
        """Conduct a plan over the sites."""
        return launch(self.coordinator, signed.digest, lambda *_: LocalNetwork(self), resume=resume)


class LocalNetwork:
    """Hands sealed orders to the sites, and answers back."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.patience = Patience(1.0, 1, 1.0)

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`."""
        for site, order in orders.items():
            answer = self.federation.open(site).site.answer(order)
            if answer is not None:
                yield site, answer


def make_federation(folder: Path, base: Path, names: tuple[str, ...] = ("a", "b", "c", "d")) -> Federation:
    """Initialise, ask, enrol, accept: everything up to the first plan."""
    coordinator = CoordinatorHome(folder / "coordinator")
    initialise_coordinator(coordinator, "play", "127.0.0.1:9999")
    identity = read_identity(coordinator.identity_key)
    AuditLog(coordinator.audit, coordinator.audit_anchor, identity).record(AdminCommand(command="init", by="tester"))
    (folder / "base").symlink_to(base)
    coordinator.config.write_text(COORDINATOR.format(base=folder / "base"))
    sites = {name: make_site(folder / name, coordinator) for name in names}
    return Federation(coordinator, sites)


def make_site(folder: Path, coordinator: CoordinatorHome) -> SiteHome:
    """One site, from nothing to an accepted invitation."""
    write_rows(folder / "data" / "rows.csv", folder.name, patients=12)
    home = SiteHome(folder / "home")
    initialise_site(home, SITE_LIMITS.format(name=folder.name, data=folder / "data"))
    identity = site_identity(home)
    create_ledger(home.ledger, home.ledger_anchor, identity, host_identifier(home.keys))
    AuditLog(home.audit, home.audit_anchor, identity).record(AdminCommand(command="init", by="tester"))
    invitation = enrol(coordinator, make_request(home, load_site_config(home.config)))
    pinned = accept(home, invitation, None).invitation
    Inbox(home.inbox, pinned.federation, pinned.site, identity, pinned.coordinator)
    return home
