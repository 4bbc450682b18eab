"""The update of mode per-site in whole numbers: cut, rounded, and refused where it is not finite."""

from pathlib import Path

import numpy as np
import pytest

from client.training.dp_step import TrainingSet
from client.training.loop import LocalTrainer
from client.training.quantised import QuantisedTrainer
from common.base_model import load_base
from common.compute import ComputeConfig
from common.errors import CloisterError
from common.messages import RoundOrder
from common.records.records import build_records
from common.secagg.fixed_point import restore, update_step
from common.trainable import TrainableModel
from tests.plans import make_plan
from tests.sources import SeededSource

ROSTER = {name: digit * 64 for name, digit in zip("abc", "123", strict=True)}
TERMS = {"masked": True, "tolerated_dropouts": 1, "tolerated_colluders": 0}
PLAN = make_plan(
    sites=3, roster=ROSTER, secure_aggregation={**TERMS, "update_limit": 2.0}, privacy={"noise_multiplier": 0.1}
)
NOTHING = np.zeros(0, dtype=np.float32)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> TrainableModel:
    return TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), PLAN, ComputeConfig())


@pytest.fixture
def data(model: TrainableModel) -> TrainingSet:
    return TrainingSet.of(build_records(["the patient had a rash", "no fever"], [1, 0], None), model, "patient")


def test_it_is_the_update_of_the_local_trainer_to_half_a_step_of_the_grid(model, data):
    order = RoundOrder(PLAN.digest, 1, model.start, NOTHING)
    plain = LocalTrainer(PLAN, model, data, SeededSource(1)).train(order)
    whole = QuantisedTrainer(PLAN, model, data, SeededSource(1)).train(order)
    assert whole.dtype == np.int64
    assert np.abs(plain).max() > 0.01
    assert np.abs(restore(whole, 3, 2.0) - plain).max() <= update_step(3, 2.0) / 2


def given(monkeypatch, *values):
    monkeypatch.setattr(LocalTrainer, "train", lambda _self, _order: np.float32(values))


def test_a_value_beyond_the_limit_is_cut_so_that_three_such_sites_do_not_wrap(model, data, monkeypatch):
    given(monkeypatch, 1e30, -5, 2, -2, 1, 0)
    whole = QuantisedTrainer(PLAN, model, data, SeededSource(1)).train(None)
    assert restore(whole, 3, 2.0).tolist() == [2, -2, 2, -2, 1, 0]
    assert 3 * np.abs(whole).max() < 2**31
    assert 6 * np.abs(whole).max() >= 2**31  # and no bit is wasted


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_an_error_of_ours_that_quotes_nothing(model, data, monkeypatch, bad):
    given(monkeypatch, 1.25, bad)
    with pytest.raises(CloisterError, match=r"not finite, so there is nothing to send") as caught:
        QuantisedTrainer(PLAN, model, data, SeededSource(1)).train(None)
    assert "1.25" not in str(caught.value)
    assert caught.value.__cause__ is None
