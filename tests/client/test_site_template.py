import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from client.config import SiteConfig, SiteDataConfig
from client.site_template import site_toml
from common.config import parse_config

LEAST = SiteConfig(name="st-anna", data=SiteDataConfig(train=("records.csv",)))


def uncommented(text: str, mark: str) -> str:
    """The file with every setting that stands behind the mark switched on."""
    return re.sub(rf'^{mark} (?=[\["a-z_])(?=\S+(?: = .*|\].*)$)', "", text, flags=re.MULTILINE)


def read(text: str) -> SiteConfig:
    return parse_config(SiteConfig, tomllib.loads(text), "site.toml")


def keys(kind: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all plain keys."""
    for key, field in kind.model_fields.items():
        inner = [part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if is_config(part)]
        yield from keys(inner[0], (*path, key)) if inner else [(*path, key)]


def is_config(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def has(table: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if key not in table:
            return False
        table = table[key]
    return True


def test_the_file_as_it_is_written_says_nothing_but_what_must_be_said() -> None:
    assert read(site_toml("st-anna")) == LEAST


def test_what_the_comments_show_is_what_holds() -> None:
    text = uncommented(site_toml("st-anna"), "#")
    assert text != site_toml("st-anna")
    assert read(text) == LEAST


def test_every_key_occurs_in_its_table() -> None:
    text = uncommented(uncommented(site_toml("st-anna"), "#"), "#-")
    table = tomllib.loads(text)
    missing = [path for path in keys(SiteConfig) if not has(table, path)]
    assert missing == []
    assert len(list(keys(SiteConfig))) > 40


def test_the_examples_of_what_has_no_default_are_well_formed() -> None:
    text = uncommented(site_toml("st-anna"), "#-").replace("64 hexadecimal digits", "0" * 64)
    config = read(text)
    assert config.policy.bases == {"all-MiniLM-L6-v2": "0" * 64}
    assert config.policy.expires is not None
    assert config.budget.record is not None


@pytest.mark.parametrize("folder", ["da ta", 'qu"ote', "back\\slash", "line\nfeed", "del\x7f", "{{ x }}", "ü 😀 # x"])
def test_values_stay_values(folder: str) -> None:
    config = read(site_toml("a", folder=folder, train=("x.csv", folder), dataset="visits"))
    assert config.data.folder == folder
    assert config.data.train == ("x.csv", folder)
