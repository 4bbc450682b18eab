"""The learning rate over a run, as a public function of the step number."""

from __future__ import annotations

import math

from common.plan import OptimizerConfig


def rate_factor(optimizer: OptimizerConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at a step.

    It rises in a line over the warm-up, and then falls to 0 at the run's end in a line or along a cosine, or stays.

    Args:
        optimizer: The optimizer's settings.
        step: Step of the whole run, 0..steps-1.
        steps: T, steps of the whole run.
    """
    if step < optimizer.warmup_steps:
        return (step + 1) / optimizer.warmup_steps
    done = (step - optimizer.warmup_steps) / max(1, steps - optimizer.warmup_steps)
    match optimizer.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
