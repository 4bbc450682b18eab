import shutil
from pathlib import Path

import pytest
import torch
from opacus.grad_sample import GradSampleModule

from client.doctor.mechanism import gradient_findings
from client.doctor.model import check_real_model, check_small_model
from common.base_files import identify_base
from common.compute import ComputeConfig
from common.errors import IntegrityError
from common.signed_plan import write_signed_plan
from tests.federation_play import make_federation
from tests.plans import make_plan


@pytest.fixture
def wrong_by_one_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GradSampleModule.GRAD_SAMPLERS[torch.nn.Linear]

    def wrong(layer: torch.nn.Module, activations: list[torch.Tensor], backprops: torch.Tensor) -> dict:
        return {tensor: 1.01 * value for tensor, value in right(layer, activations, backprops).items()}

    monkeypatch.setitem(GradSampleModule.GRAD_SAMPLERS, torch.nn.Linear, wrong)


def test_the_small_model_passes_and_is_the_same_each_time() -> None:
    assert 0 < check_small_model() == check_small_model() < 1e-5


def test_a_wrong_rule_for_one_layer_is_found(wrong_by_one_percent: None) -> None:
    with pytest.raises(IntegrityError, match="differ from a plain loop"):
        check_small_model()


def test_a_real_base(tiny_base: Path) -> None:
    plan = make_plan(base=identify_base(tiny_base, "tiny"))
    assert check_real_model(tiny_base, plan, ComputeConfig()) < 1e-3


def test_a_wrong_rule_on_a_real_base(tiny_base: Path, wrong_by_one_percent: None) -> None:
    with pytest.raises(IntegrityError):
        check_real_model(tiny_base, make_plan(base=identify_base(tiny_base, "tiny")), ComputeConfig())


def test_deep_looks_at_the_base_of_each_kept_plan_that_is_here(tmp_path: Path, tiny_base: Path) -> None:
    federation = make_federation(tmp_path, tiny_base)
    home, signed = federation.sites["a"], federation.sign()
    home.plan(signed.digest).write_bytes(write_signed_plan(signed))
    assert [finding.sentence for finding in gradient_findings(home, deep=True)][1:] == [
        "the base model of tiny is not here"
    ]
    kept = home.bases / signed.plan.base.digest
    shutil.copytree(tiny_base, kept)
    assert "on the base model of tiny" in [finding.sentence for finding in gradient_findings(home, deep=True)][1]
    (kept / "config.json").write_bytes(b"{}")
    list(gradient_findings(home, deep=True))
    assert kept.is_dir()  # a doctor throws nothing away
