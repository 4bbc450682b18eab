"""What the files in a run's folder are called, for those who look at a run without conducting it."""

from __future__ import annotations

RESULTS_NAME = "results.json"
"""Written last: a folder without it is not finished."""

SIGNED_PLAN_NAME = "signed-plan.json"

LOCK_NAME = ".lock"
"""Held by the process that conducts the run."""

SUBMISSION_NAME = "submission.json"
"""What was handed to the SuperLink."""

CARD_NAME = "model-card.md"
CURVE_NAME = "learning-curve.png"
ADAPTER_NAME = "adapter"
