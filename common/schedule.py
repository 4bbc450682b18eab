"""The learning rate over a run, as a public function of the step number."""

from __future__ import annotations

import math

from common.plan import LocalConfig


def rate_factor(local: LocalConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at a step.

    It rises in a line over the warm-up, and then falls to 0 at the run's end in a line or along a cosine, or stays.

    Args:
        local: The site optimizer's settings.
        step: Step of the whole run, 0..steps-1.
        steps: T, steps of the whole run.
    """
    if step < local.warmup_steps:
        return (step + 1) / local.warmup_steps
    done = (step - local.warmup_steps) / max(1, steps - local.warmup_steps)
    match local.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
