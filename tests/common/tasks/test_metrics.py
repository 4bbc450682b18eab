import math

import numpy as np
import pytest

from common.tasks.metrics import classification_metrics, cross_entropy


def test_cross_entropy_by_hand() -> None:
    # Softmax of (0, log 3) is (1/4, 3/4).
    logits = np.array([[0.0, math.log(3)], [0.0, math.log(3)]], dtype=np.float32)
    assert cross_entropy(logits, np.array([0, 1])) == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)


def test_a_certain_model_has_a_finite_loss() -> None:
    logits = np.array([[1000.0, -1000.0]], dtype=np.float32)
    assert cross_entropy(logits, np.array([0])) == 0.0
    assert cross_entropy(logits, np.array([1])) == 2000.0


def test_figures_of_two_labels_by_hand() -> None:
    # Scores of the positive label are 3, 1, -1, -2; predicted positive: the first two.
    logits = np.array([[0, 3], [0, 1], [0, -1], [0, -2]], dtype=np.float64)
    figures = classification_metrics(logits, np.array([1, 0, 1, 0]), positive=1)
    assert figures == pytest.approx({"accuracy": 0.5, "f1": 0.5, "auc": 0.75})


def test_the_positive_label_may_be_the_first() -> None:
    logits = np.array([[2, 0], [1, 0], [0, 1]], dtype=np.float64)
    assert classification_metrics(logits, np.array([0, 0, 1]), positive=0) == {"accuracy": 1.0, "f1": 1.0, "auc": 1.0}


def test_without_a_positive_label_f1_is_the_mean_over_labels() -> None:
    logits = np.eye(3)[[0, 0, 1, 2]]
    figures = classification_metrics(logits, np.array([0, 1, 1, 2]), positive=None)
    assert figures == pytest.approx({"accuracy": 0.75, "f1": (2 / 3 + 2 / 3 + 1) / 3})


def test_one_class_has_no_auc() -> None:
    assert "auc" not in classification_metrics(np.zeros((2, 2)), np.array([1, 1]), positive=1)


def test_ranks_survive_where_probabilities_saturate() -> None:
    logits = np.array([[0, 200], [0, 100], [0, 90]], dtype=np.float64)
    assert classification_metrics(logits, np.array([1, 1, 0]), positive=1)["auc"] == 1.0
