import numpy as np
import pytest

from client.data.checks import check_records, check_splits, check_step
from common.plan import PrivacyConfig
from common.records.records import build_records

LABELS = ("none", "event")


def rows(
    count, label=lambda row: row % 2, patient=lambda row: row, text=lambda row: f"a note of its own, number {row}"
):
    numbers = range(count)
    return build_records(
        [text(row) for row in numbers], [label(row) for row in numbers], [str(patient(row)) for row in numbers]
    )


def finding(subject, records, labels=LABELS, unit="patient", sampling_rate=0.5, divisor=50.0):
    (found,) = (item for item in everything(records, labels, unit, sampling_rate, divisor) if item.subject == subject)
    return found


def everything(records, labels=LABELS, unit="patient", sampling_rate=0.5, divisor=50.0):
    privacy = PrivacyConfig(unit=unit, sampling_rate=sampling_rate, divisor=divisor)
    return (*check_records(records, labels, unit), *check_step(records.unit_count(unit), privacy))


def level_and_sentence(found):
    assert bool(found.mend) == (found.level != "pass")
    return found.level, found.sentence


def test_good_data_pass_everywhere():
    found = everything(rows(100))
    assert [item.subject for item in found] == [
        "labels",
        "balance",
        "rows a patient",
        "repeats",
        "length",
        "draw",
        "divisor",
    ]
    assert {item.level for item in found} == {"pass"}
    assert not any(item.mend for item in found)


def test_no_rows_fail_and_end_the_check():
    (found,) = check_records(rows(0), LABELS, "patient")
    assert level_and_sentence(found) == ("fail", "there are no rows")


def test_a_label_that_never_occurs_is_named():
    found = finding("labels", rows(100), ("none", "event", "unclear"))
    assert level_and_sentence(found) == ("warn", "no row is labelled unclear")


def test_one_label_alone_is_no_failure_because_other_sites_may_have_the_rest():
    assert level_and_sentence(finding("labels", rows(100, label=lambda row: 1))) == ("warn", "no row is labelled none")


@pytest.mark.parametrize(("events", "level"), [(4, "warn"), (5, "pass")])
def test_a_rare_label_is_worth_a_warning(events, level):
    found = finding("balance", rows(100, label=lambda row: row < events))
    assert level_and_sentence(found) == (level, f"none {100 - events}.0%, event {events}.0%")


@pytest.mark.parametrize(
    ("rate", "draw", "level"), [(0.009, "0.9", "fail"), (0.05, "5.0", "warn"), (0.1, "10.0", "pass")]
)
def test_too_small_a_draw_is_a_failure(rate, draw, level):
    found = finding("draw", rows(100), sampling_rate=rate)
    assert found.level == level
    assert found.sentence.startswith(f"a step draws {draw} of 100 patients on average")


def test_the_draw_counts_units():
    records = rows(100, patient=lambda row: row // 10)
    assert "of 10 patients" in finding("draw", records).sentence
    assert "of 100 records" in finding("draw", records, unit="record").sentence


@pytest.mark.parametrize(
    ("divisor", "level", "ratio"),
    [(25.0, "pass", "2.00"), (24.0, "warn", "2.08"), (100.0, "pass", "0.50"), (101.0, "warn", "0.50")],
)
def test_a_divisor_far_from_the_draw_is_worth_a_warning(divisor, level, ratio):
    found = finding("divisor", rows(100), divisor=divisor)
    assert level_and_sentence(found) == (level, f"the average draw is {ratio} times the divisor")


def test_one_patient_with_most_rows_is_worth_a_warning():
    heavy = finding("rows a patient", rows(120, patient=lambda row: min(row, 100)))
    even = finding("rows a patient", rows(120, patient=lambda row: row // 12))
    assert level_and_sentence(heavy) == ("warn", "a patient has 1.2 rows on average and 20 at most")
    assert level_and_sentence(even) == ("pass", "a patient has 12.0 rows on average and 12 at most")


def test_unit_record_warns_where_patients_have_several_rows():
    assert finding("rows a patient", rows(20, patient=lambda row: row // 2), unit="record").level == "warn"
    assert finding("rows a patient", rows(20), unit="record").level == "pass"


def test_repeats_are_counted_blind_to_case_and_spacing():
    texts = ["One thing  happened", "one thing happened", "ONE thing\nhappened ", "another thing happened"]
    records = build_records(texts, [0, 0, 1, 1], ["1", "2", "3", "4"])
    expected = "texts that repeat an earlier one: 2; that occur under two labels: 1"
    assert level_and_sentence(finding("repeats", records)) == ("warn", expected)


@pytest.mark.parametrize(("copies", "level"), [(2, "pass"), (3, "warn")])
def test_one_repeat_in_a_hundred_is_usual(copies, level):
    assert finding("repeats", rows(100, text=lambda row: f"a note of its own {max(row, copies - 1)}")).level == level


@pytest.mark.parametrize(("short", "level"), [(1, "pass"), (2, "warn")])
def test_short_texts_are_counted(short, level):
    found = finding("length", rows(100, text=lambda row: f" x{row:<20}" if row < short else f"long enough {row}"))
    assert level_and_sentence(found) == (level, f"texts shorter than 10 characters: {short}")


def test_no_finding_shows_a_row():
    records = rows(9, text=lambda row: "Zebulon7749", patient=lambda row: "Zebulon7749")
    shown = repr(
        everything(records, unit="record", sampling_rate=0.01, divisor=9.0)
        + check_splits({"training": records, "test": records})
    )
    assert "Zebulon" not in shown


def test_a_patient_in_two_parts_is_a_failure():
    training, test = rows(5), rows(6, patient=lambda row: row + 3, text=lambda row: f"another text {row}")
    patients, texts = check_splits({"training": training, "test": test})
    assert level_and_sentence(patients) == ("fail", "patients in both training and test: 2")
    assert level_and_sentence(texts) == ("pass", "no text is in both training and test")


def test_a_text_in_two_parts_is_worth_a_warning():
    training = rows(5, text=lambda row: f"text {max(row, 1)}")
    test = rows(5, patient=lambda row: row + 100, text=lambda row: f"Text  {row % 4}")
    patients, texts = check_splits({"training": training, "test": test})
    assert level_and_sentence(patients) == ("pass", "no patient is in both training and test")
    assert level_and_sentence(texts) == ("warn", "texts in both training and test: 3")


def test_every_pair_of_parts_is_checked():
    one, two, three = rows(2), rows(2, patient=lambda row: row + 10), rows(2)
    found = check_splits({"training": one, "validation": two, "test": three})
    failed = [item.sentence for item in found if item.level == "fail"]
    assert len(found) == 6
    assert failed == ["patients in both training and test: 2"]


def test_without_ids_shared_patients_cannot_be_known():
    unknown = build_records(["a text of a patient"], [0], None)
    for parts in ({"a": unknown, "b": rows(2)}, {"a": rows(2), "b": unknown}):
        assert check_splits(parts)[0].level == "warn"
        assert "cannot be known" in check_splits(parts)[0].sentence


def test_parts_of_a_split_pass():
    records = rows(20, patient=lambda row: row // 2)
    parts = {"training": records.select(np.arange(10)), "test": records.select(np.arange(10, 20))}
    assert {item.level for item in check_splits(parts)} == {"pass"}
