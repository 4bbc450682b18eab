"""Phrases of the synthetic clinical notes, as data: who takes what, what may go wrong, and how a note says so.

`{slot}` is replaced by one of the phrases of that slot. The slots `drug`, `other`, `finding`, `cause` and `condition`
are filled for each note; the rest are in `SLOTS`. The two kinds of telling sentences share their words on purpose:
"no", "stopped", "after" and "due to" stand in both, so that a bag of words finds its way only part of the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Specialty:
    """The words of one kind of ward."""

    drugs: tuple[str, ...]
    findings: tuple[str, ...]
    causes: tuple[str, ...]
    conditions: tuple[str, ...]


SPECIALTIES: Mapping[str, Specialty] = {
    "cardiology": Specialty(
        drugs=(
            "amiodarone",
            "ramipril",
            "bisoprolol",
            "atorvastatin",
            "furosemide",
            "digoxin",
            "warfarin",
            "amlodipine",
        ),
        findings=("dry cough", "ankle swelling", "slow pulse", "dizziness", "muscle pain", "nosebleeds", "faintness"),
        causes=("long flight", "salty diet", "known aortic stenosis", "poor sleep", "chest infection", "dehydration"),
        conditions=("heart failure", "atrial fibrillation", "hypertension", "angina", "a recent stent"),
    ),
    "oncology": Specialty(
        drugs=("cisplatin", "paclitaxel", "capecitabine", "tamoxifen", "imatinib", "pembrolizumab", "methotrexate"),
        findings=(
            "mouth ulcers",
            "numb fingers",
            "vomiting",
            "low white count",
            "hair loss",
            "diarrhoea",
            "hearing loss",
        ),
        causes=(
            "bowel metastases",
            "radiotherapy",
            "old trauma",
            "bad oysters",
            "anxiety before scans",
            "ill-fitting dentures",
        ),
        conditions=("breast cancer", "colon cancer", "lymphoma", "lung cancer", "a sarcoma"),
    ),
    "psychiatry": Specialty(
        drugs=("sertraline", "lithium", "clozapine", "olanzapine", "lamotrigine", "haloperidol", "venlafaxine"),
        findings=("tremor", "weight gain", "restlessness", "dry mouth", "stiff limbs", "drowsiness", "night sweats"),
        causes=("alcohol withdrawal", "too much coffee", "grief", "night shifts", "thyroid disease", "snoring at home"),
        conditions=("depression", "bipolar disorder", "schizophrenia", "panic attacks", "insomnia"),
    ),
    "infection": Specialty(
        drugs=("amoxicillin", "vancomycin", "isoniazid", "doxycycline", "ciprofloxacin", "cotrimoxazole", "gentamicin"),
        findings=("itchy rash", "hives", "jaundice", "tinnitus", "sun burn", "tendon pain", "fever", "thrush"),
        causes=("viral illness", "new detergent", "nut allergy", "gallstones", "beach holiday", "insect bites"),
        conditions=("pneumonia", "tuberculosis", "cellulitis", "a urine infection", "endocarditis"),
    ),
}

COMMON = Specialty(
    drugs=("ibuprofen", "omeprazole", "codeine", "prednisolone", "paracetamol", "metformin", "gabapentin"),
    findings=("nausea", "headache", "constipation", "fatigue", "skin itching", "poor appetite", "blurred vision"),
    causes=("a fall", "flu", "stress at work", "missed meals", "migraine", "old age", "a cold"),
    conditions=("diabetes", "osteoarthritis", "asthma", "reflux", "chronic back pain"),
)

# Each sentence that describes a reaction, beside a twin of nearly the same words that does not. In the first block the
# twins differ in order or in one small word, in the second in what is said.
TELLING = (
    ("{finding} after {drug}, none before", "{finding} before {drug}, none after"),
    ("{finding} {time} after {starting} {drug}", "{finding} {time} before {starting} {drug}"),
    ("{drug} {halted} because of {finding}, no {cause}", "{drug} {halted} because of {cause}, no {finding}"),
    ("{finding} {blamed} {drug} rather than {cause}", "{finding} {blamed} {cause} rather than {drug}"),
    ("not {cause}, {finding} {blamed} {drug}", "not {drug}, {finding} {blamed} {cause}"),
    ("{drug} changed to {other}, {finding} not cost", "{drug} changed to {other}, cost not {finding}"),
    ("{finding} without {cause} while on {drug}", "{cause} without {finding} while on {drug}"),
    ("well before {drug}, {finding} now", "{finding} before {drug}, well now"),
    ("gone without {drug} and back with it: {finding}", "gone with {drug} and back without it: {finding}"),
    ("first {drug}, then {finding}", "first {finding}, then {drug}"),
    ("mother took {drug} well, this patient had {finding}", "mother had {finding}, this patient took {drug} well"),
    ("thought to be {cause}, now {finding} from {drug}", "thought to be from {drug}, now {finding} with {cause}"),
    ("{finding} eased when {drug} was {halted}", "{drug} was {halted} when {finding} eased"),
    ("no {finding} until {drug}", "no {finding} since {drug}"),
    ("{finding} worse with more {drug}", "{finding} better with more {drug}"),
    ("{finding} again with {drug}, as the last time", "no {finding} again with {drug}, unlike the last time"),
    # what is said
    ("{drug} {halted} because of {finding}", "{drug} {halted}, course complete, no {finding}"),
    ("{finding} {blamed} {drug}", "{finding} {blamed} {cause}"),
    ("could not go on with {drug}, {finding} every time", "goes on with {drug}, {finding} at no time"),
    ("{finding} since the dose of {drug} went up", "no {finding} since the dose of {drug} went up"),
    ("was well until {time} into {drug}, then {finding}", "{time} into {drug}, well, {finding} not seen"),
    ("{finding} with no other cause found, {drug} {halted}", "{finding} with another cause found, {drug} goes on"),
    ("does not want {drug} again after the {finding}", "does not want {drug}, has read about {finding}"),
    ("{finding} settled {time} after {drug} was {halted}", "{starting} {drug} for {finding}, settled after {time}"),
    ("calls about {finding}, likely from {drug}", "to call if {finding} comes up on {drug}"),
    ("{onset} {finding} on {drug}", "takes {drug}, denies {finding}"),
    ("side effect of {drug}: {finding}", "no side effect of {drug}, asked for {finding}"),
    ("allergic to {drug}, had {finding}", "not allergic to {drug}, had {cause} and {finding}"),
    ("cannot tolerate {drug}, severe {finding}", "tolerates {drug}, severe {finding} with {cause}"),
    (
        "{drug} reaction with {finding}, told the pharmacy",
        "no reaction to {drug}, told the pharmacy about {finding} years ago",
    ),
)

ROUTINE = (
    "{drug} continued, next visit in {time}",
    "seen for {condition}, stable",
    "{starting} {drug} for {condition}",
    "bloods taken, results to follow",
    "known {condition}, takes {drug} and {other}",
    "wife asks about {drug}, leaflet given",
    "course of {drug} complete, {halted} as planned",
    "eating and sleeping well",
    "needs a new prescription of {drug}",
)

FILLER = (
    "background of {condition}",
    "bp {pressure}, pulse {pulse}",
    "also takes {other}",
    "{other} {halted} last year",
    "no chest pain, no fever",
    "denies {symptom}",
    "{symptom} {blamed} {cause}",
    "{symptom} before, well now",
    "{symptom} again since {time}",
    "{symptom} without other cause",
    "lives alone, daughter visits",
    "to call if worse",
    "calls about the dose of {other}",
    "bloods normal, none due until next visit",
    "could not come last time",
    "mother had {condition}",
    "{other} since {time}, dose went up",
    "{other} {halted} because of cost",
    "likely to go on with {other}",
    "smoker, does not want to stop",
)

SLOTS: Mapping[str, tuple[str, ...]] = {
    "onset": ("developed", "got", "came with", "noticed", "complains of", "new"),
    "starting": ("starting", "restarting", "the first dose of", "going on to", "stepping up"),
    "halted": ("stopped", "withdrawn", "held", "discontinued", "left off", "taken off the chart"),
    "blamed": ("due to", "put down to", "attributed to", "from", "explained by", "probably due to", "most likely"),
    "time": ("{number} days", "a week", "{number} weeks", "some hours", "a month", "two nights", "{number} months"),
    "number": ("2", "3", "4", "5", "6", "10", "12"),
    "symptom": ("knee pain", "a sore throat", "low mood", "a blocked nose", "heartburn", "palpitations", "back pain"),
    "pressure": ("118/72", "124/80", "135/85", "142/90", "150/94", "105/60"),
    "pulse": ("58", "64", "72", "80", "88", "96"),
}

ABBREVIATIONS: Mapping[str, str] = {
    "patient": "pt",
    "because of": "2/2",
    "due to": "d/t",
    "attributed to": "attrib",
    "complains of": "c/o",
    "discontinued": "d/c",
    "stopped": "stpd",
    "with": "w",
    "without": "w/o",
    "before": "b4",
    "after": "p",
    "started": "st",
    "weeks": "/52",
    "days": "/7",
    "months": "/12",
    "history": "hx",
    "denies": "den",
    "diarrhoea": "D+",
    "vomiting": "V+",
    "nausea": "N+",
    "headache": "HA",
    "no": "nil",
}
