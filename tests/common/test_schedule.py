import pytest

from common.plan import OptimizerConfig
from common.schedule import rate_factor


def factors(schedule: str, warmup: int, steps: int) -> list[float]:
    optimizer = OptimizerConfig.model_validate({"learning_rate": 1.0, "schedule": schedule, "warmup_steps": warmup})
    return [rate_factor(optimizer, step, steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        ("constant", 2, [0.5, 1, 1, 1]),
        ("linear", 2, [0.5, 1, 1, 0.5]),
        ("linear", 3, [1 / 3, 2 / 3, 1, 1]),
    ],
)
def test_schedules_by_hand(schedule: str, warmup: int, expected: list[float]) -> None:
    assert factors(schedule, warmup, 4) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_every_step_moves_and_none_overshoots(schedule: str, warmup: int) -> None:
    found = factors(schedule, warmup, 20)
    assert all(0 < factor <= 1 for factor in found)
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
