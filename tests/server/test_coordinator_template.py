import tomllib

from common.config import parse_config
from server.config import CoordinatorConfig
from server.coordinator_template import coordinator_toml
from tests.commented_toml import DEFAULT, EXAMPLE, missing_keys, uncommented

TEXT = coordinator_toml("adverse-events", "study.example.org:9443")
LEAST = CoordinatorConfig(name="adverse-events", address="study.example.org:9443")


def read(text: str) -> CoordinatorConfig:
    return parse_config(CoordinatorConfig, tomllib.loads(text), "coordinator.toml")


def test_the_file_as_it_is_written_says_nothing_but_what_must_be_said() -> None:
    assert read(TEXT) == LEAST


def test_what_the_comments_show_is_what_holds() -> None:
    assert uncommented(TEXT, DEFAULT) != TEXT
    assert read(uncommented(TEXT, DEFAULT)) == LEAST


def test_every_key_occurs_in_its_table() -> None:
    everything = uncommented(uncommented(TEXT, DEFAULT), EXAMPLE)
    assert missing_keys(CoordinatorConfig, tomllib.loads(everything)) == []
    assert missing_keys(CoordinatorConfig, tomllib.loads(TEXT))


def test_the_examples_are_well_formed() -> None:
    config = read(uncommented(TEXT, EXAMPLE))
    assert config.gateway_port == 9443
    assert config.base is not None
