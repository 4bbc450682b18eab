from pathlib import Path

import pytest

from client.training.choice import build_trainer
from client.training.dp_step import TrainingSet
from client.training.loop import LocalTrainer
from client.training.quantised import QuantisedTrainer
from client.training.union import UnionTrainer
from common.base_model import load_base
from common.compute import ComputeConfig
from common.records.records import build_records
from common.trainable import TrainableModel
from tests.plans import make_plan
from tests.sources import SeededSource

MASKED = {"masked": True, "tolerated_dropouts": 1, "tolerated_colluders": 0}
ROSTER = {name: digit * 64 for name, digit in zip("abc", "123", strict=True)}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (UnionTrainer, {"mode": "distributed", "local_steps": 1, "secure_aggregation": MASKED}),
        (QuantisedTrainer, {"mode": "per-site", "secure_aggregation": MASKED}),
        (LocalTrainer, {"mode": "per-site", "secure_aggregation": {"masked": False}}),
    ],
)
def test_the_plan_says_what_a_site_runs(tiny_base: Path, kind: type, changes: dict) -> None:
    plan = make_plan(sites=3, roster=ROSTER, **changes)
    model = TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), plan, ComputeConfig())
    data = TrainingSet.of(build_records(["no fever"], [0], None), model, "record")
    assert type(build_trainer(plan, model, data, SeededSource(1))) is kind
