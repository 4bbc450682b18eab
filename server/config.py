"""coordinator.toml: how hospitals meet this coordinator. Nothing in it is about privacy."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from common.address import AddressText
from common.config import StrictConfig, parse_config
from common.config_file import read_toml
from common.enrolment import FederationName
from common.errors import ConfigError


class CoordinatorConfig(StrictConfig):
    """Everything that a coordinator sets for itself."""

    name: FederationName = Field(description="the federation's name; part of its id, so it never changes")
    address: AddressText = Field(description="HOST:PORT at which hospitals meet the gateway; in its certificate")


def load_coordinator_config(path: Path) -> CoordinatorConfig:
    """Read coordinator.toml.

    Raises:
        ConfigError: With every problem at once.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}", hint="make the home by `cloister-coordinator init`")
    return parse_config(CoordinatorConfig, read_toml(path), str(path))
