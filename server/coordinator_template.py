"""The commented coordinator.toml that `cloister-coordinator init` writes."""

from __future__ import annotations

from common.config_template import fill_template


def coordinator_toml(name: str, address: str) -> str:
    """The text of a new coordinator.toml: what must be set is set, and each other key is a comment with its default.

    Args:
        name: Of the federation.
        address: HOST:PORT that hospitals reach.
    """
    return fill_template("server", "coordinator.toml.jinja", name=name, address=address)
