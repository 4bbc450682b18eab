"""The commented site.toml that `cloister-site init` writes."""

from __future__ import annotations

from collections.abc import Sequence

from common.config_template import fill_template


def site_toml(
    name: str, *, folder: str = ".", train: Sequence[str] = ("records.csv",), dataset: str = "records"
) -> str:
    """The text of a new site.toml: what must be set is set, and each other key is a comment with its default.

    Args:
        name: The site's name.
        folder: Where the data files are.
        train: Names of the data files.
        dataset: The ledger's name for these records.
    """
    return fill_template("client", "site.toml.jinja", name=name, folder=folder, train=list(train), dataset=dataset)
