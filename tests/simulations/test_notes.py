import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from common.columns import DataColumns
from common.records.records import merge
from common.records.sources import read_records
from simulations.notes import LABELS, POSITIVE_LABEL, PROFILES, NotesConfig, generate_notes, generate_rows, write_notes
from simulations.notes_grammar import FILLER, ROUTINE, SLOTS, SPECIALTIES, TELLING

SMALL = NotesConfig(hospitals=2, patients_per_hospital=10, validation_patients=4, test_patients=6)
FILLED_BY_NOTE = {"drug", "other", "finding", "cause", "condition"}


def test_parts_have_the_patients_asked_for_with_one_to_eight_notes_each():
    hospitals, validation, test = generate_notes(SMALL, seed=1)
    assert [part.patient_count for part in (*hospitals, validation, test)] == [10, 10, 4, 6]
    counts = np.concatenate([np.bincount(part.patients) for part in generate_notes(NotesConfig(hospitals=1), 1)[0]])
    assert set(counts.tolist()) <= set(range(1, 9))
    assert {1, 2, 6} <= set(counts.tolist())
    assert 3.0 < counts.mean() < 3.7


def test_no_patient_is_in_two_parts():
    hospitals, validation, test = generate_notes(SMALL, seed=1)
    keys = [key for part in (*hospitals, validation, test) for key in part.patient_keys]
    assert len(set(keys)) == len(keys)


def test_the_same_seed_gives_the_same_notes_and_another_seed_others():
    assert generate_rows(SMALL, 1) == generate_rows(SMALL, 1)
    assert generate_rows(SMALL, 1) != generate_rows(SMALL, 2)


def test_parts_of_the_same_kind_have_notes_of_their_own():
    rows = generate_rows(NotesConfig(hospitals=5, patients_per_hospital=10, validation_patients=8, test_patients=8), 1)
    for one, other in (("hospital-1", "hospital-5"), ("validation", "test")):
        assert [text for _, text, _ in rows[one]] != [text for _, text, _ in rows[other]]


def test_more_patients_and_hospitals_change_no_note():
    small = generate_rows(SMALL, 1)
    large = generate_rows(NotesConfig(hospitals=3, patients_per_hospital=20, validation_patients=8, test_patients=9), 1)
    assert all(large[name][: len(rows)] == rows for name, rows in small.items())


def test_label_noise_flips_labels_of_hospitals_only():
    sizes = {"hospitals": 1, "patients_per_hospital": 300, "validation_patients": 4, "test_patients": 4}
    clean, noisy = (generate_rows(NotesConfig(label_noise=noise, **sizes), 1) for noise in (0.0, 0.2))
    flipped = [one[2] != other[2] for one, other in zip(clean["hospital-1"], noisy["hospital-1"], strict=True)]
    assert [row[:2] for row in clean["hospital-1"]] == [row[:2] for row in noisy["hospital-1"]]
    assert 0.15 < np.mean(flipped) < 0.25
    assert (clean["validation"], clean["test"]) == (noisy["validation"], noisy["test"])


def test_hospitals_differ_in_prevalence_words_and_style():
    rows = generate_rows(NotesConfig(label_noise=0.0), 1)
    for number, profile in enumerate(PROFILES, start=1):
        part = rows[f"hospital-{number}"]
        share = np.mean([label == POSITIVE_LABEL for _, _, label in part])
        assert abs(share - profile.prevalence) < 0.06
        own, others = (
            np.mean([any(drug in text.casefold() for drug in words.drugs) for _, text, _ in part])
            for words in (SPECIALTIES[profile.specialty], SPECIALTIES["oncology" if number != 2 else "infection"])
        )
        assert own > 0.5
        assert others < 0.2
    abbreviated = [sum(" d/c" in text for _, text, _ in rows[f"hospital-{number}"]) for number in (3, 4)]
    assert abbreviated[0] == 0 < abbreviated[1]


def test_every_slot_is_filled_and_every_text_is_a_note():
    texts = [text for part in generate_rows(SMALL, 3).values() for _, text, _ in part]
    assert not any(re.search(r"[{}]|None|\s\s", text) for text in texts)
    assert all(10 < len(text) < 400 and text.endswith(".") for text in texts)


def test_every_slot_of_the_grammar_is_known():
    pairs = [sentence for pair in TELLING for sentence in pair]
    phrases = [*pairs, *ROUTINE, *FILLER, *(phrase for phrases in SLOTS.values() for phrase in phrases)]
    slots = {slot for phrase in phrases for slot in re.findall(r"\{(\w+)\}", phrase)}
    assert slots <= FILLED_BY_NOTE | set(SLOTS)
    assert set(SLOTS) <= slots


def test_every_twin_speaks_of_a_finding():
    assert all("{finding}" in sentence for pair in TELLING for sentence in pair)
    assert all(len(set(pair)) == 2 for pair in TELLING)


def test_files_hold_the_rows_and_can_be_read_back(tmp_path):
    paths = write_notes(tmp_path, SMALL, seed=1)
    assert [path.name for path in paths] == ["hospital-1.csv", "hospital-2.csv", "validation.csv", "test.csv"]
    read = read_records(paths[:1], DataColumns(), LABELS)
    (written, _), _, _ = generate_notes(SMALL, seed=1)
    assert read.texts == written.texts
    assert read.labels.tolist() == written.labels.tolist()
    assert read.patients.tolist() == written.patients.tolist()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_bag_of_words_learns_the_task_but_does_not_master_it(seed):
    hospitals, _, test = generate_notes(NotesConfig(patients_per_hospital=150), seed)
    training = merge(hospitals)
    words = TfidfVectorizer(sublinear_tf=True)
    model = LogisticRegression(max_iter=500).fit(words.fit_transform(training.texts), training.labels)
    scores = model.predict_proba(words.transform(test.texts))[:, 1]
    assert 0.80 < roc_auc_score(test.labels, scores) < 0.95
