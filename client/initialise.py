"""A new site: keys and config, all at once or not at all."""

from __future__ import annotations

from collections.abc import Callable

from client.home import SiteHome
from client.keys import create_keys
from common.files import write_new_durably
from common.private_files import PRIVATE_FILE


def initialise(home: SiteHome, config_text: str, begin: Callable[[SiteHome], None] | None = None) -> None:
    """Make a site's home with its keys and its `site.toml`.

    Args:
        home: Where; nothing may be there yet.
        config_text: The settings to begin with; the hospital edits them afterwards.
        begin: Begins the site's books, in a home that has its keys but is not in its place yet.

    Raises:
        ConfigError: When something is there already: nothing is ever overwritten.
    """
    home.create(lambda draft: _fill(draft, config_text, begin))


def _fill(home: SiteHome, config_text: str, begin: Callable[[SiteHome], None] | None) -> None:
    create_keys(home)
    write_new_durably(home.config, config_text.encode("utf-8"), mode=PRIVATE_FILE)
    if begin is not None:
        begin(home)
