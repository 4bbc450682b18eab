import math

import pytest

import server.plan_check
from common.config import parse_config
from common.errors import ConfigError
from common.plan import PlanDraft
from server.config import load_coordinator_config
from server.plan_check import check_plan
from tests.enrolment_play import make_coordinator
from tests.federation_play import DRAFT

ROSTER = {"north": "a" * 64, "south": "b" * 64, "west": "c" * 64, "east": "d" * 64}


@pytest.fixture
def config(tmp_path, tiny_base):
    home = make_coordinator(tmp_path)
    (tmp_path / "base").symlink_to(tiny_base)
    home.config.write_text(
        f'name = "play"\naddress = "127.0.0.1:9999"\nbase = "{tmp_path / "base"}"\nbase_name = "tiny"\n'
    )
    return load_coordinator_config(home.config)


def draft(**changes):
    return parse_config(PlanDraft, {**DRAFT, **changes}, "the test")


def found(checked):
    return {finding.subject: finding for finding in checked.findings}


def test_a_plan_that_fits_names_its_sites_its_base_and_its_bytes(config):
    checked = check_plan(draft(), ROSTER, config)
    assert checked.fits
    assert checked.plan.roster == ROSTER
    assert checked.plan.base.name == "tiny"
    findings = found(checked)
    trained = int(findings["trained values"].sentence.split()[0])
    assert findings["bytes"].sentence.startswith(f"{4 * trained} bytes each way a round and site")
    assert f"{math.sqrt(4 / 2):.2f} times" in findings["masks"].sentence  # 4 sites less a drop-out and a colluder
    assert "3, each of at least 3 of" in findings["rounds"].sentence


def test_targets_that_the_base_lacks_do_not_fit(config):
    checked = check_plan(draft(adapter={"rank": 2, "targets": ["no_such_module"]}), ROSTER, config)
    assert not checked.fits


def test_public_files_that_the_run_could_not_use_do_not_fit(config):
    public = config.public.model_copy(update={"test": ("gone.csv",)})
    checked = check_plan(draft(), ROSTER, config.model_copy(update={"public": public}))
    assert found(checked)["public data"].sentence.endswith("gone.csv: does not exist")
    assert not checked.fits


@pytest.mark.parametrize(
    ("limits", "mend"),
    [
        ({"MESSAGE_LIMIT_BYTES": 1000}, "train fewer values: a lower rank, fewer layers"),
        ({}, "set gateway.body_limit_bytes in coordinator.toml to "),
    ],
)
def test_messages_that_would_not_get_through_are_told_before_anybody_signs(config, monkeypatch, limits, mend):
    for name, value in limits.items():
        monkeypatch.setattr(server.plan_check, name, value)
    narrow = config.model_copy(update={"gateway": config.gateway.model_copy(update={"body_limit_bytes": 2048})})
    failed = [one for one in check_plan(draft(), ROSTER, narrow).findings if one.level == "fail"]
    assert [one.subject for one in failed] == ["bytes"]
    assert failed[0].mend.startswith(mend)


def test_without_a_base_nothing_is_finished(config):
    with pytest.raises(ConfigError, match="no base model"):
        check_plan(draft(), ROSTER, config.model_copy(update={"base": None}))
