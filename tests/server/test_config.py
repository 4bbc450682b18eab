from pathlib import Path

import pytest

from common.errors import ConfigError
from common.plan import PrivacyTerms
from server.config import CoordinatorConfig, load_coordinator_config
from tests.commented_toml import key_paths

LEAST = 'name = "study"\naddress = "study.example.org:9443"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "coordinator.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_coordinator_config(written(tmp_path, text))
    return "\n".join(map(str, caught.value.problems))


def test_name_and_address_are_enough(tmp_path: Path) -> None:
    config = load_coordinator_config(written(tmp_path, LEAST))
    assert config.gateway_port == 9443
    assert config.public.validation_files == ()


def test_relative_paths_start_at_the_files_own_folder(tmp_path: Path) -> None:
    text = LEAST + 'base = "tiny"\n[public]\nfolder = "sets"\nvalidation = ["v.csv"]\ntest = ["t.csv"]\n'
    config = load_coordinator_config(written(tmp_path, text))
    assert config.base == str(tmp_path / "tiny")
    assert config.public.validation_files == (tmp_path / "sets" / "v.csv",)
    assert config.public.test_files == (tmp_path / "sets" / "t.csv",)


def test_a_base_inside_a_package_stays_there(tmp_path: Path) -> None:
    config = load_coordinator_config(written(tmp_path, LEAST + 'base = "package:name/model"\n'))
    assert config.base == "package:name/model"


def test_the_gateway_may_listen_on_another_port_than_the_published(tmp_path: Path) -> None:
    assert load_coordinator_config(written(tmp_path, LEAST + "[listen]\nport = 443\n")).gateway_port == 443


@pytest.mark.parametrize(
    ("addition", "rule"),
    [
        ("[listen]\nsuperlink_port = 9443\n", "must not be the gateway's port"),
        ("[waiting]\nleast_poll_seconds = 2\n", "`least_poll_seconds` must be at most"),
        ('[public.columns]\ntext = "label"\n', "two different columns"),
        ("[gateway]\nburst = 0\n", "gateway.burst"),
        ("[privacy]\nepsilon = 3\n", "privacy: is not a known key"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, addition: str, rule: str) -> None:
    assert rule in problems(tmp_path, LEAST + addition)


def test_an_address_is_host_and_port(tmp_path: Path) -> None:
    assert "address" in problems(tmp_path, 'name = "study"\naddress = "study.example.org"\n')


def test_a_coordinator_without_config_is_told_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_coordinator_config(tmp_path / "coordinator.toml")
    assert "cloister-coordinator init" in caught.value.hint


def test_nothing_about_privacy_can_be_set() -> None:
    names = {path[-1] for path in key_paths(CoordinatorConfig)}
    assert names.isdisjoint({*PrivacyTerms.model_fields, "epsilon", "minimum_sites", "threshold", "masked"})
