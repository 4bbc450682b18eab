"""Do the data fit the plan? For the eyes of the data's owner.

Every sentence here holds exact counts of private rows. They stay with whoever owns the data (in a simulation: the
researcher) and are never sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from common.findings import Finding
from common.plan import PrivacyConfig, Unit
from common.records.records import UNKNOWN_PATIENT, Integers, Records

_RARE_LABEL = 0.05
_FEW_REPEATS = 0.01
_FEW_SHORT = 0.01
_SHORT_CHARACTERS = 10
_SMALL_DRAW = 10
_DIVISOR_OFF = 2.0
_SKEWED = 10.0


def check_records(records: Records, labels: Sequence[str], unit: Unit) -> tuple[Finding, ...]:
    """Hold one site's rows against the plan.

    Guarantees:
        Findings hold counts, shares and the plan's own words, never a text, a label of one row or a patient id. The
        counts are private all the same: show them to the data's owner only.
    Edge cases: Without any row there is one failing finding and no other.

    Args:
        records: The rows to train on.
        labels: The plan's labels in their order.
        unit: The plan's unit of privacy.
    """
    if not len(records):
        return (Finding("fail", "rows", "there are no rows", "point the config at the right files"),)
    return (
        _label_finding(records, labels),
        _balance_finding(records, labels),
        _patient_finding(records, unit),
        _repeat_finding(records),
        _length_finding(records),
    )


def check_step(units: int, privacy: PrivacyConfig) -> tuple[Finding, ...]:
    """Hold what a step draws on average against the constants of the plan.

    Args:
        units: Patients or records that a step draws from: a site's, or those of all sites in mode distributed.
        privacy: Sampling rate and divisor.
    """
    return (
        _draw_finding(units, privacy.unit, privacy.sampling_rate),
        _divisor_finding(units, privacy.sampling_rate, privacy.divisor),
    )


def check_splits(parts: Mapping[str, Records]) -> tuple[Finding, ...]:
    """Look for patients and texts that two parts share; what a model has seen cannot test it.

    Patients are told apart by their original ids, so all parts must come from files with one way of numbering them.

    Args:
        parts: The parts by name, such as training, validation, test.
    """
    findings = []
    for (first, one), (second, other) in combinations(parts.items(), 2):
        findings.append(_shared_patient_finding(f"{first} and {second}", one, other))
        findings.append(_shared_text_finding(f"{first} and {second}", one, other))
    return tuple(findings)


# --- one part ------------------------------------------------------------------------------------------------------


def _label_finding(records: Records, labels: Sequence[str]) -> Finding:
    counts = np.bincount(records.labels, minlength=len(labels))
    absent = [label for label, count in zip(labels, counts.tolist(), strict=True) if not count]
    if not absent:
        return Finding("pass", "labels", f"all {len(labels)} labels occur")
    mend = "check the label column and `task.labels`; a label that never occurs cannot be learned here"
    # Not a failure, not even with one label left: other sites may have the rest.
    return Finding("warn", "labels", f"no row is labelled {', '.join(absent)}", mend)


def _balance_finding(records: Records, labels: Sequence[str]) -> Finding:
    shares = np.bincount(records.labels, minlength=len(labels)) / len(records)
    sentence = ", ".join(f"{label} {share:.1%}" for label, share in zip(labels, shares, strict=True))
    if shares.min() >= _RARE_LABEL:
        return Finding("pass", "balance", sentence)
    mend = f"a label below {_RARE_LABEL:.0%} is learned slowly under noise: judge by AUC or F1, not by accuracy"
    return Finding("warn", "balance", sentence, mend)


def _draw_finding(units: int, unit: Unit, sampling_rate: float) -> Finding:
    draw = units * sampling_rate
    sentence = f"a step draws {draw:,.1f} of {units:,} {unit}s on average"
    mend = "raise `plan.privacy.sampling_rate`, or bring in more data"
    if draw < 1:
        return Finding("fail", "draw", f"{sentence}, so most steps are noise only", mend)
    if draw < _SMALL_DRAW:
        return Finding("warn", "draw", sentence, f"{mend}: noise outweighs few units")
    return Finding("pass", "draw", sentence)


def _divisor_finding(units: int, sampling_rate: float, divisor: float) -> Finding:
    ratio = units * sampling_rate / divisor
    sentence = f"the average draw is {ratio:.2f} times the divisor"
    if 1 / _DIVISOR_OFF <= ratio <= _DIVISOR_OFF:
        return Finding("pass", "divisor", sentence)
    mend = (
        "set `plan.privacy.divisor` to a round public guess of the average draw, never to this count itself; "
        "far from it, steps are too short or too long"
    )
    return Finding("warn", "divisor", sentence, mend)


def _patient_finding(records: Records, unit: Unit) -> Finding:
    if unit == "patient" and UNKNOWN_PATIENT in records.patient_keys:
        rule = "the unit of privacy is the patient, and nothing says whose the rows are"
        return Finding("fail", "rows a patient", rule, "name the patient column, or set `privacy.unit` to record")
    rows = np.bincount(records.patients)
    largest, mean = int(rows.max()), float(rows.mean())
    sentence = f"a patient has {mean:.1f} rows on average and {largest:,} at most"
    if unit == "record" and largest > 1:
        mend = 'the promise covers one row, not a patient: `privacy.unit = "patient"` covers all rows of one'
        return Finding("warn", "rows a patient", sentence, mend)
    if largest > _SKEWED * mean:
        mend = "a patient is clipped as a whole, so such a patient's rows count little; keep the most telling ones"
        return Finding("warn", "rows a patient", sentence, mend)
    return Finding("pass", "rows a patient", sentence)


def _repeat_finding(records: Records) -> Finding:
    prints = _text_prints(records)
    kinds, inverse = np.unique(prints, return_inverse=True)
    repeats = len(prints) - len(kinds)
    # A text that occurs with two labels is one kind of text but two kinds of pair.
    clashes = len(np.unique(np.stack([inverse, records.labels]), axis=1).T) - len(kinds)
    sentence = f"texts that repeat an earlier one: {repeats:,}; that occur under two labels: {clashes:,}"
    if repeats <= _FEW_REPEATS * len(records):
        return Finding("pass", "repeats", sentence)
    return Finding("warn", "repeats", sentence, "remove copies, or check that they are meant: templates teach little")


def _length_finding(records: Records) -> Finding:
    short = sum(len(text.strip()) < _SHORT_CHARACTERS for text in records.texts)
    sentence = f"texts shorter than {_SHORT_CHARACTERS} characters: {short:,}"
    if short <= _FEW_SHORT * len(records):
        return Finding("pass", "length", sentence)
    return Finding("warn", "length", sentence, "check that the text column is the right one")


# --- two parts -----------------------------------------------------------------------------------------------------


def _shared_patient_finding(pair: str, one: Records, other: Records) -> Finding:
    if UNKNOWN_PATIENT in one.patient_keys or UNKNOWN_PATIENT in other.patient_keys:
        mend = "name the patient column in the config"
        return Finding("warn", "patients", f"whether {pair} share patients cannot be known: there are no ids", mend)
    shared = len(set(one.patient_keys) & set(other.patient_keys))
    if not shared:
        return Finding("pass", "patients", f"no patient is in both {pair}")
    mend = "move all rows of a patient to one part; results would look better than they are"
    return Finding("fail", "patients", f"patients in both {pair}: {shared:,}", mend)


def _shared_text_finding(pair: str, one: Records, other: Records) -> Finding:
    shared = len(np.intersect1d(_text_prints(one), _text_prints(other)))
    if not shared:
        return Finding("pass", "texts", f"no text is in both {pair}")
    return Finding("warn", "texts", f"texts in both {pair}: {shared:,}", "remove them from one part")


def _text_prints(records: Records) -> Integers:
    """A hash a text, blind to case and spacing; two texts share one by chance about never. Shape `[N]`."""
    return np.fromiter((hash(" ".join(text.split()).casefold()) for text in records.texts), np.int64, len(records))
