"""Figures of merit on labelled public rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


def cross_entropy(logits: Floats, labels: Labels) -> float:
    """Mean cross-entropy in nats; logits `[N, K]`, labels `[N]`."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def classification_metrics(logits: Floats, labels: Labels, positive: int | None) -> dict[str, float]:
    """Accuracy, F1 and AUC.

    With a positive label, F1 is that label's and AUC is that label against all others; AUC is left out where only one
    class is present. Without a positive label, F1 is the mean over labels and there is no AUC.

    Args:
        logits: Shape `[N, K]`.
        labels: Shape `[N]`, values 0..K-1.
        positive: Index of the positive label, or None.
    """
    predicted = logits.argmax(axis=1)
    metrics = {"accuracy": float(accuracy_score(labels, predicted))}
    if positive is None:
        metrics["f1"] = float(f1_score(labels, predicted, average="macro", zero_division=0.0))
        return metrics
    truth = labels == positive
    metrics["f1"] = float(f1_score(truth, predicted == positive, zero_division=0.0))
    if truth.any() and not truth.all():
        metrics["auc"] = float(roc_auc_score(truth, _log_odds(logits, positive)))
    return metrics


def _log_odds(logits: Floats, positive: int) -> Floats:
    """log p / (1 - p) of the positive label: ranks like p but does not saturate."""
    shares = log_softmax(logits.astype(np.float64), axis=1)
    others = np.delete(shares, positive, axis=1)
    scores: Floats = shares[:, positive] - np.logaddexp.reduce(others, axis=1)
    return scores
