import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.records.records import UNKNOWN_PATIENT, Records, build_records, merge


def three_patients() -> Records:
    return build_records(["a", "b", "c", "d", "e"], [0, 1, 0, 1, 1], ["x", "y", "x", "z", "y"])


def test_patients_are_numbered_by_first_appearance():
    records = three_patients()
    assert records.patients.tolist() == [0, 1, 0, 2, 1]
    assert records.patient_count == 3
    assert len(records) == 5


def test_units_are_patients_or_rows():
    records = three_patients()
    assert records.units("patient").tolist() == [0, 1, 0, 2, 1]
    assert records.units("record").tolist() == [0, 1, 2, 3, 4]
    assert (records.unit_count("patient"), records.unit_count("record")) == (3, 5)


def test_nothing_of_a_row_is_shown():
    records = build_records(["canary text"], [0], ["canary id"])
    assert repr(records) == str(records) == "Records(hidden)"
    assert b"canary id" not in records.patient_keys


def test_equal_ids_have_equal_keys_and_others_have_not():
    one, two = build_records(["a"], [0], ["x"]), build_records(["b", "c"], [0, 0], ["y", "x"])
    assert one.patient_keys[0] == two.patient_keys[1]
    assert one.patient_keys[0] != two.patient_keys[0]


def test_without_ids_every_row_is_an_unknown_patient():
    records = build_records(["a", "b"], [0, 1], None)
    assert records.patients.tolist() == [0, 1]
    assert records.patient_keys == (UNKNOWN_PATIENT, UNKNOWN_PATIENT)


def test_an_id_of_half_a_surrogate_pair_is_an_id():
    assert build_records(["a"], [0], ["\ud800"]).patient_keys != build_records(["a"], [0], ["?"]).patient_keys


def test_select_keeps_the_order_asked_for_and_leaves_no_gap():
    records = three_patients()
    chosen = records.select(np.array([4, 3, 1]))
    assert chosen.texts == ("e", "d", "b")
    assert chosen.labels.tolist() == [1, 1, 1]
    assert chosen.patients.tolist() == [0, 1, 0]
    assert chosen.patient_keys == records.patient_keys[1:]


def test_selecting_nothing_leaves_no_patient():
    nothing = three_patients().select(np.zeros(0, dtype=np.int64))
    assert (len(nothing), nothing.patient_count) == (0, 0)


def test_merge_keeps_patients_of_different_parts_apart():
    one, two = three_patients(), three_patients()
    both = merge([one, two])
    assert both.texts == one.texts * 2
    assert both.labels.tolist() == [0, 1, 0, 1, 1] * 2
    assert both.patients.tolist() == [0, 1, 0, 2, 1, 3, 4, 3, 5, 4]
    assert both.patient_keys == one.patient_keys * 2
    assert len(merge([])) == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=30), st.data())
def test_select_and_build_agree(rows, data):
    patients = [f"p{patient}" for patient, _ in rows]
    texts, labels = [str(number) for number in range(len(rows))], [label for _, label in rows]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    selected = build_records(texts, labels, patients).select(np.array(chosen, dtype=np.int64))
    assert [int(text) for text in selected.texts] == chosen
    assert selected.labels.tolist() == [labels[row] for row in chosen]
    same = {(patients[row], int(number)) for row, number in zip(chosen, selected.patients, strict=True)}
    assert len(same) == len({patients[row] for row in chosen}) == selected.patient_count


@pytest.mark.parametrize(
    ("labels", "patients", "keys"),
    [
        ([0], [0, 0], (b"k",)),
        ([0, -1], [0, 0], (b"k",)),
        ([0, 0], [0, 1], (b"k",)),
        ([0, 0], [-1, 0], (b"k",)),
        ([0, 0], [0, 0], (b"k", b"l")),
    ],
    ids=["lengths differ", "negative label", "patient without key", "negative patient", "patient without row"],
)
def test_parts_that_do_not_fit_are_refused(labels, patients, keys):
    with pytest.raises(ValueError, match="must"):
        Records(("a", "b"), np.array(labels), np.array(patients), keys)
