from types import SimpleNamespace

import numpy as np
import pytest

import server.public_data
from common.errors import DataError
from server.config import PublicDataConfig
from server.public_data import open_public_sets
from server.results import Judged
from server.state import Evaluation, GlobalModel

MODEL = SimpleNamespace(plan=SimpleNamespace(task=SimpleNamespace(labels=("none", "event"))), prepare=tuple)
ROWS = "text,label\nfever,event\nwell,none\nfine,none\n"


class Evaluator:
    def __init__(self, model, features, labels):
        self.features, self.labels = features, list(labels)

    def evaluate(self, weights, basis):
        return Evaluation(float(weights[0]), {"rows": len(self.labels)})


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(server.public_data, "PublicEvaluator", Evaluator)
    (tmp_path / "rows.csv").write_text(ROWS)
    return lambda **sets: PublicDataConfig(folder=str(tmp_path), **sets)


def test_each_set_is_read_prepared_and_judges_by_itself(config):
    sets = open_public_sets(config(validation=["rows.csv"]), MODEL)
    assert sets.validation.rows_by_label == {"none": 2, "event": 1}
    assert sets.validation.evaluator.features == ("fever", "well", "fine")
    assert sets.validation.evaluator.labels == [1, 0, 0]
    model = GlobalModel(np.array([0.5]), np.zeros(0))
    assert sets.judged("validation", model) == Judged(Evaluation(0.5, {"rows": 3}), {"none": 2, "event": 1})
    assert sets.judged("test", model) is None


def test_no_files_no_sets(config):
    sets = open_public_sets(config(), MODEL)
    assert (sets.validation, sets.test) == (None, None)


def test_a_label_that_the_plan_does_not_know_is_told_without_its_row(config, tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na secret,odd\n")
    with pytest.raises(DataError) as unfit:
        open_public_sets(config(test=["rows.csv"]), MODEL)
    assert "secret" not in repr(unfit.value.problems) + unfit.value.message
