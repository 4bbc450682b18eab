"""A coordinator and sites that are being enrolled, at a fixed time, for tests of both sides."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from client.home import SiteHome
from client.initialise import initialise as initialise_site
from common.enrolment import JoinRequest, sign_join_request
from common.identity import new_identity
from server.home import CoordinatorHome
from server.initialise import initialise as initialise_coordinator

NOW = datetime(2026, 11, 5, 9, 30, tzinfo=UTC)
ADDRESS = "study.example.org:9443"


@dataclass(frozen=True)
class Name:
    """As much of a site's config as a request needs."""

    name: str


def make_site(folder: Path, name: str = "north") -> SiteHome:
    home = SiteHome(folder / name)
    initialise_site(home, f'name = "{name}"\n')
    return home


def make_coordinator(folder: Path, name: str = "sepsis", address: str = ADDRESS) -> CoordinatorHome:
    home = CoordinatorHome(folder / name)
    initialise_coordinator(home, name, address, NOW)
    return home


def make_join_request(site: str = "north", identity=None, node_key=None) -> JoinRequest:
    node_key = node_key or ec.generate_private_key(ec.SECP384R1())
    return sign_join_request(site, identity or new_identity(), node_key, NOW)
