"""A plan of four rounds of three steps, for tests that need one but none of what it says."""

from common.plan import Plan

ROUNDS = 4
STEPS = 3


def small_plan(**changes) -> Plan:
    values = {
        "name": "study",
        "mode": "per-site",
        "rounds": ROUNDS,
        "local_steps": STEPS,
        "sites": 2,
        "task": {"labels": ["no", "yes"], "positive_label": "yes"},
        "optimizer": {"learning_rate": 0.1},
        "secure_aggregation": {"masked": False},
        "base": {"name": "tiny", "files": {"model.safetensors": "0" * 64}},
        "privacy": {"sampling_rate": 0.1, "divisor": 10.0, "noise_multiplier": 1.0},
    }
    return Plan.model_validate({**values, **changes})
