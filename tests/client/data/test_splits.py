import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.splits import split_by_patient
from common.errors import ConfigError
from common.records.records import build_records


def records_of(patients):
    return build_records([str(row) for row in range(len(patients))], [0] * len(patients), [str(p) for p in patients])


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(lambda patients: len(set(patients)) > 1),
    st.floats(0.001, 0.999),
    st.integers(0, 9),
)
def test_every_row_is_in_one_part_and_no_patient_in_both(patients, fraction, seed):
    rest, held = split_by_patient(records_of(patients), fraction, seed)
    assert sorted(rest.texts + held.texts, key=int) == [str(row) for row in range(len(patients))]
    assert not set(rest.patient_keys) & set(held.patient_keys)
    assert held.patient_count == min(max(round(fraction * len(set(patients))), 1), len(set(patients)) - 1)


def test_a_split_is_a_matter_of_the_seed_alone():
    records = records_of(range(20))
    first, again, other = (split_by_patient(records, 0.3, seed)[1].texts for seed in (1, 1, 2))
    assert first == again != other
    assert list(first) == sorted(first, key=int)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_outside_is_refused(fraction):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_by_patient(records_of([1, 2]), fraction, 1)


def test_one_patient_cannot_be_split():
    with pytest.raises(ConfigError, match="two patients"):
        split_by_patient(records_of([1, 1]), 0.5, 1)
