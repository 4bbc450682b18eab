"""A new site: keys and config, all at once or not at all."""

from __future__ import annotations

from collections.abc import Callable

from client.config import SiteConfig
from client.home import SiteHome
from client.keys import create_keys
from common.errors import ConfigError
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
    if home.config.exists():
        raise ConfigError(
            f"the folder {home.path} is not empty: it is a site's home, and a home is never made over another",
            hint=f"to change its settings, edit {home.config}; for another site choose another place by `--home`",
        )
    home.create(lambda draft: _fill(draft, config_text, begin))


def missing_records(home: SiteHome, config: SiteConfig) -> tuple[str, ...]:
    """What the settings name and is not there yet, one sentence each, with the mend; it may come later.

    Args:
        home: Where the settings will be: relative paths in them begin there.
        config: The settings.
    """
    folder = home.path / config.data.folder
    if not folder.is_dir():
        return (f"the folder {folder} is not there: make it, or edit `data.folder` in {home.config}",)
    files = (folder / name for name in config.data.train)
    mend = f"put it there, or edit `data.train` in {home.config}"
    return tuple(f"the file {file} is not there: {mend}" for file in files if not file.is_file())


def _fill(home: SiteHome, config_text: str, begin: Callable[[SiteHome], None] | None) -> None:
    create_keys(home)
    write_new_durably(home.config, config_text.encode("utf-8"), mode=PRIVATE_FILE)
    if begin is not None:
        begin(home)
