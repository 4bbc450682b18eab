"""A new coordinator: identity, certificate authority, certificates and config, all at once or not at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from common.address import parse_address
from common.config import parse_config
from common.files import write_new_durably
from common.identity import new_identity
from common.key_files import write_identity
from common.moments import current_moment
from common.private_files import PRIVATE_FILE
from server.certificates import create_certificates
from server.config import CoordinatorConfig, load_coordinator_config
from server.coordinator_template import coordinator_toml
from server.home import CoordinatorHome


def initialise(
    home: CoordinatorHome,
    name: str,
    address: str,
    now: datetime | None = None,
    begin: Callable[[CoordinatorHome], None] | None = None,
) -> CoordinatorConfig:
    """Make a coordinator's home with all that it needs to enrol sites.

    Args:
        home: Where; nothing may be there yet.
        name: The federation's name.
        address: `HOST:PORT`, in any spelling.
        now: The clock, in UTC; the machine's where left out.
        begin: Begins the books, in a home that has its keys but is not in its place yet.

    Raises:
        ConfigError: When name or address do not fit, or something is there already: nothing is ever overwritten.
    """
    values = {"name": name, "address": str(parse_address(address))}
    config = parse_config(CoordinatorConfig, values, "the command")

    def fill(draft: CoordinatorHome) -> None:
        _fill(draft, config, now or current_moment())
        if begin is not None:
            begin(draft)

    home.create(fill)
    return load_coordinator_config(home.config)


def _fill(home: CoordinatorHome, config: CoordinatorConfig, now: datetime) -> None:
    write_identity(home.identity_key, new_identity())
    create_certificates(home, config.name, config.address, now)
    text = coordinator_toml(config.name, config.address)
    write_new_durably(home.config, text.encode("utf-8"), mode=PRIVATE_FILE)
