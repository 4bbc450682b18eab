"""That the bench's plans and model fit; what it measures takes minutes."""

import pytest

from common.base_model import load_base
from common.compute import ComputeConfig
from common.trainable import TrainableModel
from simulations.bench_deployed import EMPTY, MASKED, OPEN_POLICY, WORKING, make_base, spread, write_rows
from simulations.deployed import deploy


@pytest.mark.parametrize(
    ("draft", "sites", "policy"), [(EMPTY, "ab", OPEN_POLICY), (MASKED, "abc", ""), (WORKING, "abc", "")]
)
def test_a_plan_is_signed_and_the_model_fits_it(tmp_path, draft, sites, policy):
    base = make_base(tmp_path / "base")
    rows = {name: write_rows(tmp_path / "data" / name, name) for name in sites}
    signed = deploy(tmp_path, base, rows, policy=policy).sign(draft)
    assert signed.plan.sites == len(sites)
    model = TrainableModel(load_base(base, "tiny", ComputeConfig()), signed.plan, ComputeConfig())
    assert model.spec.dimension < 1000


def test_median_and_middle_half():
    assert spread([1.0, 2.0, 3.0]) == "2.000 (1.000 to 3.000)"
