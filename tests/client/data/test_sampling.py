import time

import numpy as np
import pytest

from client.data import sampling
from client.data.sampling import PoissonSampler
from common.randomness import SecretSource, public_generator
from tests.privacy.acceptance import sampler_faults
from tests.sources import SeededSource

UNITS, RATE, DRAWS = 12, 0.15, 12_000


class Fixed:
    """A source that gives these values and no others."""

    def __init__(self, *values: float) -> None:
        self._values = list(values)

    def uniform(self, count: int) -> np.ndarray:
        taken, self._values = self._values[:count], self._values[count:]
        assert len(taken) == count
        return np.array(taken, dtype=float)


@pytest.mark.parametrize("source", [SeededSource(1), SecretSource()], ids=["seeded", "secret"])
def test_draws_are_independent_with_the_plans_probability(source: SeededSource | SecretSource) -> None:
    sampler = PoissonSampler(RATE, UNITS, source)
    assert sampler_faults([sampler.draw() for _ in range(DRAWS)], RATE, UNITS) == set()


@pytest.mark.parametrize("wrong", [RATE * 0.95, RATE * 1.05])
def test_a_rate_five_percent_off_is_rejected(wrong: float) -> None:
    sampler = PoissonSampler(wrong, UNITS, SeededSource(2))
    faults = sampler_faults([sampler.draw() for _ in range(DRAWS)], RATE, UNITS)
    assert {"batch size mean", "unit frequency"} <= faults


def test_a_favoured_unit_is_rejected() -> None:
    source = SeededSource(3)
    rates = np.full(UNITS, RATE)
    rates[:2] = RATE + 0.03, RATE - 0.03
    faults = sampler_faults([np.flatnonzero(source.uniform(UNITS) < rates) for _ in range(DRAWS)], RATE, UNITS)
    assert faults == {"unit frequency"}


def test_batches_of_a_fixed_size_are_rejected() -> None:
    """Right on average for every unit, but the size does not vary and an empty draw never comes."""
    generator, units, size = public_generator(4, "shuffle"), 20, 3
    faults = sampler_faults([generator.permutation(units)[:size] for _ in range(DRAWS)], size / units, units)
    assert faults == {"batch size variance", "batch size distribution", "empty draws"}


def test_draws_are_those_of_a_plain_comparison_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [index for index, value in enumerate(SeededSource(5).uniform(50)) if value < 0.3]
    monkeypatch.setattr(sampling, "_CHUNK_UNITS", 7)
    drawn = PoissonSampler(0.3, 50, SeededSource(5)).draw()
    assert drawn.dtype == np.int64
    assert drawn.tolist() == expected


def test_each_unit_is_judged_by_its_own_value() -> None:
    assert PoissonSampler(0.5, 4, Fixed(0.4999, 0.9, 0.5, 1e-16)).draw().tolist() == [0, 3]


def test_nobody_drawn_is_an_empty_array() -> None:
    drawn = PoissonSampler(1e-12, 5, SeededSource(6)).draw()
    assert drawn.shape == (0,)
    assert drawn.dtype == np.int64


def test_a_rate_of_one_draws_everybody() -> None:
    assert PoissonSampler(1.0, 3, Fixed(2.0**-53, 0.5, 1 - 2.0**-53)).draw().tolist() == [0, 1, 2]


def test_without_units_every_draw_is_empty() -> None:
    assert PoissonSampler(0.5, 0, SeededSource(7)).draw().tolist() == []


@pytest.mark.parametrize(("rate", "units"), [(0.0, 3), (-0.1, 3), (1.1, 3), (float("nan"), 3), (0.5, -1)])
def test_values_out_of_range_are_refused(rate: float, units: int) -> None:
    with pytest.raises(ValueError, match=r"sampling rate|number of units"):
        PoissonSampler(rate, units, SeededSource(8))


def test_the_number_of_units_is_not_shown() -> None:
    assert "7919" not in repr(PoissonSampler(0.5, 7919, SeededSource(9)))


def test_a_million_units_are_drawn_in_well_under_a_second() -> None:
    sampler = PoissonSampler(0.01, 1_000_000, SecretSource())
    start = time.perf_counter()
    assert 9_000 < len(sampler.draw()) < 11_000
    assert time.perf_counter() - start < 1.0
