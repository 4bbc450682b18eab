import tomllib

import pytest

from client.config import SiteConfig, SiteDataConfig
from client.site_template import site_toml
from common.config import parse_config
from tests.commented_toml import DEFAULT, EXAMPLE, key_paths, missing_keys, uncommented

LEAST = SiteConfig(name="st-anna", data=SiteDataConfig(train=("records.csv",)))


def read(text: str) -> SiteConfig:
    return parse_config(SiteConfig, tomllib.loads(text), "site.toml")


def test_the_file_as_it_is_written_says_nothing_but_what_must_be_said() -> None:
    assert read(site_toml("st-anna")) == LEAST


def test_what_the_comments_show_is_what_holds() -> None:
    text = uncommented(site_toml("st-anna"), DEFAULT)
    assert text != site_toml("st-anna")
    assert read(text) == LEAST


def test_every_key_occurs_in_its_table() -> None:
    text = uncommented(uncommented(site_toml("st-anna"), DEFAULT), EXAMPLE)
    assert missing_keys(SiteConfig, tomllib.loads(text)) == []
    assert len(list(key_paths(SiteConfig))) > 40
    assert missing_keys(SiteConfig, tomllib.loads(site_toml("st-anna")))


def test_the_examples_of_what_has_no_default_are_well_formed() -> None:
    text = uncommented(site_toml("st-anna"), EXAMPLE).replace("64 hexadecimal digits", "0" * 64)
    config = read(text)
    assert config.policy.bases == {"all-MiniLM-L6-v2": "0" * 64}
    assert config.policy.expires is not None
    assert config.budget.record is not None


@pytest.mark.parametrize("folder", ["da ta", 'qu"ote', "back\\slash", "line\nfeed", "del\x7f", "{{ x }}", "ü 😀 # x"])
def test_values_stay_values(folder: str) -> None:
    config = read(site_toml("a", folder=folder, train=("x.csv", folder), dataset="visits"))
    assert config.data.folder == folder
    assert config.data.train == ("x.csv", folder)
