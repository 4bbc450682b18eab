import json
import time
import traceback

import pyarrow
import pytest
from pyarrow import parquet

from common.columns import DataColumns
from common.errors import DataError
from common.records.sources import occurring_labels, read_records

LABELS = ("none", "event")
ROWS = [("p1", 'said "no", left', "none"), ("p2", "two\nlines", "event"), ("p1", "ümlaut", "none")]
CANARY = "Zebulon7749"


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_csv(folder, *lines, name="data.csv"):
    return write(folder, name, "\n".join(("patient_id,text,label", *lines)) + "\n")


def write_parquet(folder, columns, name="data.parquet"):
    parquet.write_table(pyarrow.table(columns), folder / name)
    return folder / name


def read(*paths, labels=LABELS, **columns):
    return read_records(list(paths), DataColumns(**columns), labels)


def problems(*paths, labels=LABELS, **columns):
    """Each problem as file name and rule; the folder of the test is left out."""
    with pytest.raises(DataError) as caught:
        read(*paths, labels=labels, **columns)
    assert caught.value.exit_code == 3
    return [str(problem).rpartition("/")[2] for problem in caught.value.problems]


def hints(*paths, **columns):
    with pytest.raises(DataError) as caught:
        read(*paths, **columns)
    return [problem.hint for problem in caught.value.problems]


# --- what is read --------------------------------------------------------------------------------------------------


def same_rows(folder, kind):
    ids, texts, labels = zip(*ROWS, strict=True)
    if kind == "parquet":
        return write_parquet(folder, {"extra": [1, 2, 3], "label": labels, "text": texts, "patient_id": ids})
    if kind == "csv":
        quoted = [f'x,{label},"{text.replace(chr(34), chr(34) * 2)}",{patient}' for patient, text, label in ROWS]
        return write(folder, "data.csv", "\r\n".join(["extra,label,text,patient_id", *quoted, "", ""]))
    lines = [json.dumps({"label": label, "patient_id": patient, "text": text}) for patient, text, label in ROWS]
    return write(folder, f"data.{kind}", "\n".join([*lines, "", ""]))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "ndjson", "parquet"])
def test_the_same_rows_are_read_from_every_kind_of_file(tmp_path, kind):
    records = read(same_rows(tmp_path, kind))
    assert records.texts == tuple(text for _, text, _ in ROWS)
    assert records.labels.tolist() == [0, 1, 0]
    assert records.patients.tolist() == [0, 1, 0]


def test_files_are_read_one_after_the_other_and_share_patients(tmp_path):
    one = write_csv(tmp_path, "7,one,none", "8,two,event")
    two = write_parquet(tmp_path, {"text": ["three"], "label": ["none"], "patient_id": [8]})
    records = read(one, two)
    assert records.texts == ("one", "two", "three")
    assert records.patients.tolist() == [0, 1, 1]


def test_columns_may_have_other_names_and_patients_be_left_out(tmp_path):
    path = write(tmp_path, "data.csv", "note,class\na,event\nb,none\n")
    records = read(path, text="note", label="class", patient=None)
    assert (records.texts, records.labels.tolist(), records.patients.tolist()) == (("a", "b"), [1, 0], [0, 1])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1], ("0", "1")),
        ([0.0, 1.0], ("0", "1")),
        ([False, True], ("False", "True")),
        ([False, True], ("false", "true")),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_labels_and_ids_may_be_numbers_or_booleans(tmp_path, values, labels, kind):
    columns = {"text": ["a", "b"], "label": values, "patient_id": [7.0, 7.0]}
    if kind == "parquet":
        path = write_parquet(tmp_path, columns)
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path = write(tmp_path, "data.jsonl", "\n".join(map(json.dumps, rows)))
    records = read(path, labels=labels)
    assert records.labels.tolist() == [0, 1]
    assert records.patient_count == 1
    assert records.patient_keys == read(write_csv(tmp_path, "7,a,none")).patient_keys


def test_outer_spaces_of_labels_and_ids_do_not_count(tmp_path):
    records = read(write_csv(tmp_path, " 1 ,a, event", "1,b,none"))
    assert records.labels.tolist() == [1, 0]
    assert records.patient_count == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "text,label,patient_id\na,event,1\n"), ("a.jsonl", '{"text": "a", "label": "event", "patient_id": 1}')],
)
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, name, content):
    assert read(write(tmp_path, name, f"\ufeff{content}")).texts == ("a",)


def test_a_line_separator_inside_json_does_not_end_the_line(tmp_path):
    path = write(tmp_path, "data.jsonl", '{"patient_id": 1, "text": "a\u2028b", "label": "none"}')
    assert read(path).texts == ("a\u2028b",)


def test_many_rows_are_read_in_seconds(tmp_path):
    count = 100_000
    path = write_csv(
        tmp_path, *(f"{row // 7},a note of about the usual length about someone {row},none" for row in range(count))
    )
    start = time.process_time()
    assert len(read(path)) == count
    assert time.process_time() - start < 5


# --- what is refused -----------------------------------------------------------------------------------------------


def test_every_problem_of_every_file_is_reported_at_once(tmp_path):
    one = write_csv(tmp_path, ",text,none", "1,  ,none", "1,text,odd", "1,text,", name="one.csv")
    two = write(tmp_path, "two.csv", "patient,text,label\n1,a,none\n")
    assert problems(one, two, tmp_path / "three.csv") == [
        "one.csv, column `text`: is empty in 1 row",
        "one.csv, column `patient_id`: is empty in 1 row",
        "one.csv, column `label`: is empty in 1 row",
        "one.csv, column `label`: is not one of the plan's labels in 1 row",
        "two.csv, column `patient_id`: is missing",
        "three.csv: does not exist",
    ]


HEADER = "patient_id,text,label\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n\n", "has no rows"),
        ("a.csv", HEADER, "has no rows"),
        ("a.csv", HEADER.encode() + b"1,\xff,none\n", "column `text`: is not valid Unicode"),
        ("a.csv", HEADER + "1,none\n1,a,none,x\n", "has another number of columns than the first line in 2 rows"),
        ("a.csv", HEADER + '1,"open,none\n', "has a quoted value that is not closed"),
        ("a.jsonl", "\n", "has no rows"),
        ("a.jsonl", '{"patient_id": 1\n[1]\n' + "[" * 99_999 + "\n", "has no JSON object in 3 rows"),
        (
            "a.jsonl",
            b'{"patient_id": 1, "text": "\xff", "label": "none"}',
            "column `text`: is not valid Unicode in 1 row",
        ),
        ("a.parquet", "PAR1 garbage PAR1", "cannot be read: ArrowInvalid"),
        ("a.xlsx", "x", "is of no known kind"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, name, content, expected):
    (found,) = problems(write(tmp_path, name, content))
    assert found.startswith((f"{name}: {expected}", f"{name}, {expected}"))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("text", "5", "is not text"),
        ("text", "null", "is empty"),
        ("text", r'" \t"', "is empty"),
        ("text", r'"\ud800"', "is not valid Unicode"),
        ("patient_id", "[1]", "is neither text nor a whole number"),
        ("patient_id", "null", "is empty"),
        ("label", "0.5", "is neither text nor a whole number"),
        ("label", "NaN", "is empty"),
        ("label", '"odd"', "is not one of the plan's labels"),
    ],
)
def test_a_value_that_cannot_be_used_is_counted(tmp_path, column, value, expected):
    row = {"patient_id": '"1"', "text": '"a"', "label": '"none"'}
    lines = [
        "{" + ", ".join(f'"{name}": {text}' for name, text in line.items()) + "}"
        for line in (row, row | {column: value})
    ]
    path = write(tmp_path, "a.jsonl", "\n".join([lines[1], lines[0], lines[1]]))
    assert problems(path) == [f"a.jsonl, column `{column}`: {expected} in 2 rows"]


def test_a_csv_column_that_is_there_twice_is_reported(tmp_path):
    path = write(tmp_path, "a.csv", "patient_id,text,text,label\n1,a,b,none\n")
    assert problems(path) == ["a.csv, column `text`: is there more than once"]


def test_a_damaged_parquet_file_is_reported(tmp_path):
    path = write_parquet(tmp_path, {"text": ["a" * 99] * 99, "label": ["none"] * 99, "patient_id": [1] * 99})
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    (found,) = problems(write(tmp_path, "damaged.parquet", bytes(content)))
    assert found.startswith("damaged.parquet: cannot be read: ")


def test_a_parquet_column_that_is_there_twice_is_reported(tmp_path):
    table = pyarrow.table([["a"], ["b"], ["none"], [1]], names=["text", "text", "label", "patient_id"])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert problems(tmp_path / "a.parquet") == ["a.parquet, column `text`: is there more than once"]


def test_dates_are_no_patient_ids(tmp_path):
    times = pyarrow.array([0, None], pyarrow.timestamp("s"))
    path = write_parquet(tmp_path, {"text": ["a", "b"], "label": ["none", None], "patient_id": times})
    assert problems(path) == [
        "data.parquet, column `patient_id`: is empty in 1 row",
        "data.parquet, column `patient_id`: is neither text nor a whole number in 1 row",
        "data.parquet, column `label`: is empty in 1 row",
    ]


def test_a_folder_and_no_file_at_all_are_reported(tmp_path):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert problems(folder) == ["folder.csv: is a folder, not a file"]
    assert problems() == ["data files: none is given"]


def test_a_file_listed_twice_is_reported_because_its_rows_would_count_twice(tmp_path):
    path = write_csv(tmp_path, "1,a,none")
    assert problems(path, path) == ["data.csv: is listed more than once"]


def test_labels_are_found_as_they_are_compared(tmp_path):
    first = write_csv(tmp_path, "p1,a, none ", "p2,b,", "p3,c,7", "p4,d,event")
    second = write_parquet(tmp_path, {"label": [7.0, None, float("nan")]})
    found = occurring_labels([first, second, tmp_path / "gone.csv"], DataColumns())
    assert found == {"none", "event", "7"}


def test_labels_in_another_case_are_pointed_out(tmp_path):
    path = write_csv(tmp_path, "1,a,None", "1,b,EVENT", "1,c,odd")
    assert hints(path) == ["the plan lists none, event; 2 rows differ only in case"]
    assert hints(write_csv(tmp_path, "1,c,odd")) == ["the plan lists none, event"]


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("Patient ID,text,label", "did you mean `Patient ID`?"),
        ("patients_id,text,label", "did you mean `patients_id`?"),
        ("who,text,label", "name the right column in the config"),
    ],
)
def test_the_closest_column_is_the_hint(tmp_path, header, hint):
    (found,) = hints(write(tmp_path, "a.csv", f"{header}\n1,a,none\n"))
    assert found.startswith(hint)


def test_without_a_header_the_first_row_is_not_taken_for_column_names(tmp_path):
    path = write(tmp_path, "a.csv", "patient_ib,texts,labels of a kind\n1,a,none\n")
    assert all(hint.startswith("name the right column") for hint in hints(path))


# --- no value of a row ---------------------------------------------------------------------------------------------

GOOD = {"patient_id": "1", "text": "a", "label": "none"}


def csv_line(**changed):
    return ",".join({**GOOD, **changed}.values())


def json_line(**changed):
    return json.dumps({**GOOD, **changed})


BROKEN = {
    "unknown label.csv": f"patient_id,text,label\n{csv_line(label=CANARY)}\n",
    "too many columns.csv": f"patient_id,text,label\n{csv_line(text=CANARY)},{CANARY}\n",
    "too few columns.csv": f"patient_id,text,label\n{CANARY}\n",
    "open quote.csv": f'patient_id,text,label\n1,"{CANARY},none\n',
    "text after quote.csv": f'patient_id,text,label\n"{CANARY}"{CANARY},a,none\n',
    "not utf-8.csv": b"patient_id,text,label\n1," + CANARY.encode() + b"\xff,none\n",
    "no header.csv": f"{CANARY},patient_{CANARY},text {CANARY}\n{csv_line()}\n",
    "near header.csv": f"patient_id{CANARY},text{CANARY},label{CANARY}\n{csv_line()}\n",
    "empty label beside.csv": f"patient_id,text,label\n{CANARY},{CANARY},\n",
    "empty text beside.csv": f"patient_id,text,label\n{CANARY},,{CANARY}\n",
    "empty patient beside.csv": f"patient_id,text,label\n,{CANARY},{CANARY}\n",
    "huge value.csv": f"patient_id,text,label\n1,{CANARY * 20_000},none\n",
    "broken line.jsonl": f'{{"text": "{CANARY}\n',
    "array.jsonl": f'["{CANARY}"]\n',
    "number text.jsonl": json.dumps({**GOOD, "text": 7749123456}) + "\n",
    "object label.jsonl": json_line(label={CANARY: CANARY}),
    "list patient.jsonl": json_line(patient_id=[CANARY], label=CANARY),
    "key as data.jsonl": json.dumps({CANARY: CANARY, f"text{CANARY}": CANARY}),
    "surrogate.jsonl": json_line(text=f"{CANARY}\ud800"),
    "not utf-8.jsonl": b'{"text": "' + CANARY.encode() + b'\xff"}',
    "garbage.parquet": f"PAR1{CANARY}{CANARY}PAR1",
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_error_holds_a_value_of_a_row(tmp_path, name):
    path = write(tmp_path, name, BROKEN[name])
    with pytest.raises(DataError) as caught:
        read(path)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = [
        str(error),
        repr(error),
        error.hint,
        repr(error.args),
        *map(str, error.problems),
        *map(repr, error.problems),
    ]
    shown += traceback.format_exception_only(error)
    assert error.problems
    assert not any(secret in text for text in shown for secret in (CANARY, "7749"))
