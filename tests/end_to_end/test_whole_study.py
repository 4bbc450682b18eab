import json
from pathlib import Path

import pytest

from tests.federation_play import Federation, make_federation


@pytest.fixture
def federation(tmp_path: Path, tiny_base: Path) -> Federation:
    return make_federation(tmp_path, tiny_base)


def test_a_study_runs_from_nothing_to_an_adapter(federation: Federation) -> None:
    signed = federation.sign()
    report = federation.run(signed)
    folder = federation.coordinator.run("tiny", signed.digest)
    assert [summary.survivors for summary in report.outcome.rounds] == [4, 4, 4]
    assert json.loads((folder / "results.json").read_text())["plan_digest"] == signed.digest
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
