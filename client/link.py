"""The way from a hospital's home to its pinned coordinator."""

from __future__ import annotations

from client.app import FleetLink
from client.authorities import trusted_authorities
from client.config import NetworkConfig
from client.enrolment import Pinned
from client.home import SiteHome
from client.keys import node_key
from client.node_number import NodeNumber


def open_link(home: SiteHome, pinned: Pinned, network: NetworkConfig) -> FleetLink:
    """The link of a site to its pinned coordinator, as the hospital's network settings say.

    Raises:
        ConfigError: When the node's key or the further CA file cannot be used.
    """
    invitation = pinned.invitation
    return FleetLink(
        invitation.address,
        trusted_authorities(invitation.ca_certificate, network),
        node_key(home),
        timeout_seconds=network.timeout_seconds,
        proxy=network.proxy,
        number=NodeNumber(home.node_number),
    )
