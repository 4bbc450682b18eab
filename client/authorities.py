"""Whose certificates a site trusts: the pinned authority's, and one more where the hospital's own proxy opens TLS."""

from __future__ import annotations

from pathlib import Path

from client.config import NetworkConfig
from common.errors import ConfigError


def trusted_authorities(pinned: str, network: NetworkConfig) -> str:
    """PEM certificates of the authorities that may sign for the coordinator, and no others.

    Args:
        pinned: The authority of the accepted invitation, PEM.
        network: The hospital's settings.

    Raises:
        ConfigError: When the further CA file cannot be read.
    """
    if network.extra_ca_file is None:
        return pinned
    try:
        return pinned + "\n" + Path(network.extra_ca_file).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"network.extra_ca_file {network.extra_ca_file} cannot be read", hint="name a PEM file, or leave it out"
        ) from None
