import re

import numpy as np

from simulations.case_reports import load_phrases, slots_of, write_reports, write_sentences

PHRASES = load_phrases()
TEMPLATES = [*PHRASES.positive, *PHRASES.negative]
DRUG_SLOTS = {"agent", "drug", "treatment", "class"}


def test_the_same_seed_writes_the_same_sentences() -> None:
    texts, labels = write_sentences(50, seed=3)
    again, same_labels = write_sentences(50, seed=3)
    assert texts == again
    assert np.array_equal(labels, same_labels)
    assert write_sentences(50, seed=4)[0] != texts


def test_more_sentences_change_none() -> None:
    few, many = write_reports(20, seed=1), write_reports(60, seed=1)
    assert many.texts[:20] == few.texts
    assert np.array_equal(many.labels[:20], few.labels)
    assert np.array_equal(many.mentions[:20], few.mentions)


def test_labels_and_mentions_have_their_shapes() -> None:
    reports = write_reports(400, seed=1)
    assert reports.labels.shape == (400,)
    assert reports.labels.dtype == np.int64
    assert reports.mentions.shape == (400, 4)
    assert set(reports.labels.tolist()) == set(reports.mentions.ravel().tolist()) == {0, 1}
    assert 0.25 < reports.labels.mean() < 0.45


def test_no_sentence_is_no_error() -> None:
    reports = write_reports(0, seed=1)
    assert reports.texts == ()
    assert reports.labels.shape == (0,)
    assert reports.mentions.shape == (0, 4)


def test_a_positive_sentence_mentions_a_drug_and_an_event() -> None:
    reports = write_reports(400, seed=2)
    assert (reports.mentions[reports.labels == 1][:, :2] == 1).all()
    # The rest do so now and then: mentioning both must not be enough.
    assert (reports.mentions[reports.labels == 0][:, :2] == 1).all(axis=1).any()


def test_sentences_are_filled_and_written_as_sentences() -> None:
    for text in write_reports(2000, seed=1).texts:
        assert not re.search(r"[{}]|  ", text)
        assert text.endswith(".")
        assert text[0].isupper() or text[0].isdigit()


def test_no_word_fills_two_slots_of_a_sentence() -> None:
    pairs = re.compile(r"interaction between (\S+) and (\S+) led")
    found = [match for text in write_reports(8000, seed=1).texts if (match := pairs.search(text))]
    assert len(found) > 10
    assert all(match[1] != match[2] for match in found)


def test_every_slot_of_a_template_has_words() -> None:
    assert [template for template in TEMPLATES if not slots_of(template) <= set(PHRASES.slots)] == []
    words = [word for choices in PHRASES.slots.values() for word in choices]
    assert [word for word in words if not slots_of(word) <= set(PHRASES.slots)] == []


def test_every_positive_template_names_drug_and_event() -> None:
    named = [slots_of(template) for template in PHRASES.positive]
    assert all("event" in slots and slots & DRUG_SLOTS for slots in named)


def test_no_template_and_no_word_is_there_twice() -> None:
    assert len(TEMPLATES) == len(set(TEMPLATES))
    for name in ("agent", "event", "condition", "symptom", "lab", "test", "finding"):
        assert len(PHRASES.slots[name]) == len(set(PHRASES.slots[name]))
