import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.records.records import build_records
from simulations.partition import partition_patients


def records_of(rows):
    """Records of (patient, label) pairs; the text of a row is its number."""
    return build_records(
        [str(row) for row in range(len(rows))], [label for _, label in rows], [str(patient) for patient, _ in rows]
    )


def two_kinds(patients):
    """One row a patient, every fourth labelled 1."""
    return records_of([(patient, int(patient % 4 == 0)) for patient in range(patients)])


def label_shares(sites):
    return np.array([site.labels.mean() for site in sites])


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=60),
    st.integers(1, 10),
    st.one_of(st.none(), st.floats(1e-3, 1e3)),
    st.integers(0, 5),
)
def test_every_row_is_at_one_site_and_no_patient_at_two(rows, sites, skew, seed):
    records = records_of(rows)
    if sites > records.patient_count:
        with pytest.raises(ConfigError, match="cannot be dealt out"):
            partition_patients(records, sites, seed, skew)
        return
    parts = partition_patients(records, sites, seed, skew)
    assert len(parts) == sites
    assert all(len(part) for part in parts)
    assert sorted(int(text) for part in parts for text in part.texts) == list(range(len(rows)))
    assert all([int(text) for text in part.texts] == sorted(map(int, part.texts)) for part in parts)
    keys = [key for part in parts for key in part.patient_keys]
    assert len(keys) == len(set(keys)) == records.patient_count


@pytest.mark.parametrize("skew", [None, 0.5])
def test_a_partition_is_a_matter_of_the_seed_alone(skew):
    first, again, other = (partition_patients(two_kinds(40), 3, seed, skew)[0].texts for seed in (1, 1, 2))
    assert first == again != other


def test_without_skew_sites_are_equally_large_and_alike():
    sites = partition_patients(two_kinds(402), 4, seed=1)
    assert sorted(site.patient_count for site in sites) == [100, 100, 101, 101]
    assert np.abs(label_shares(sites) - 0.25).max() < 0.1


def test_a_smaller_skew_makes_sites_differ_more():
    records = two_kinds(800)
    spreads = [
        np.mean([np.ptp(label_shares(partition_patients(records, 4, seed, skew))) for seed in range(10)])
        for skew in (100.0, 1.0, 0.1)
    ]
    assert spreads[0] < 0.15 < spreads[1] < spreads[2]


def test_skew_tells_patients_apart_by_more_than_their_commonest_label():
    # No patient has mostly events, as with sentences of case reports; half of the patients have one in five.
    records = records_of([(patient, int(row == 0 and patient % 2)) for patient in range(400) for row in range(5)])
    off = []
    for seed in range(10):
        sites = partition_patients(records, 4, seed, 0.1)
        off.append(np.average(np.abs(label_shares(sites) - 0.1), weights=[len(site) for site in sites]))
    assert np.mean(off) > 0.05


@pytest.mark.parametrize("skew", [0.0, -1.0, float("nan"), float("inf")])
def test_a_skew_that_is_no_positive_number_is_refused(skew):
    with pytest.raises(ConfigError, match="positive number") as caught:
        partition_patients(two_kinds(10), 2, 1, skew)
    assert caught.value.hint


@pytest.mark.parametrize("sites", [0, 11])
def test_sites_without_patients_are_refused(sites):
    with pytest.raises(ConfigError, match="cannot be dealt out") as caught:
        partition_patients(two_kinds(10), sites, 1)
    assert caught.value.hint
