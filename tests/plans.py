"""Small plans for tests."""

from typing import Any

from common.plan import (
    AdapterConfig,
    BaseIdentity,
    OptimizerConfig,
    Plan,
    PrivacyTerms,
    SecureAggregationConfig,
    ServerConfig,
    TaskConfig,
)


def make_plan(**changes: Any) -> Plan:
    """A plan of two rounds of two steps for the tiny base; sections may be given as tables that change single keys."""
    sections: dict[str, dict[str, Any]] = {
        "task": {"labels": ("none", "event"), "positive_label": "event", "max_tokens": 16},
        "adapter": {"rank": 2, "top_layers": 1, "targets": ("query", "value")},
        "privacy": {"sampling_rate": 0.5, "divisor": 4.0, "noise_multiplier": 1.0, "clip_norm": 1.0},
        "optimizer": {"learning_rate": 0.5, "momentum": 0.5, "schedule": "constant"},
        "secure_aggregation": {"masked": False},
        "server": {},
    }
    plain: dict[str, Any] = {
        "name": "test",
        "mode": "per-site",
        "rounds": 2,
        "local_steps": 2,
        "sites": 2,
        "base": BaseIdentity(name="tiny", files={"a": "0" * 64}),
    }
    for key, value in changes.items():
        if key in sections:
            sections[key] |= value
        else:
            plain[key] = value
    kinds = {
        "task": TaskConfig,
        "adapter": AdapterConfig,
        "privacy": PrivacyTerms,
        "optimizer": OptimizerConfig,
        "secure_aggregation": SecureAggregationConfig,
        "server": ServerConfig,
    }
    return Plan(**plain, **{name: kinds[name](**values) for name, values in sections.items()})
