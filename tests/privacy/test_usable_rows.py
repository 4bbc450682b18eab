"""Rows that do not fit are left out one by one, and whether a file can be used does not depend on a row."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from common.columns import DataColumns
from common.errors import DataError
from common.records.sources import Reading, read_usable_records

LABELS = ("none", "event")
HEADER = "patient_id,text,label\n"
GOOD = "p1,one,none\np2,two,event\n"


def read(*paths, **columns) -> Reading:
    return read_usable_records(list(paths), DataColumns(**columns), LABELS)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


ODD_LINES = {
    "a label of no plan": b"p3,three,hiv\n",
    "no label": b"p3,three,\n",
    "no patient": b",three,none\n",
    "an empty text": b"p3,  ,none\n",
    "bytes of another encoding": b"p3,thr\xe9\xe9,none\n",
    "an id of another encoding": b"p\xe9,three,none\n",
    "a column too many": b"p3,three,none,more\n",
    "a column too few": b"p3,three\n",
    "text after a quote": b'p3,"three"more,none\n',
    "a quote that is not closed": b'p3,"three,none\n',
    "a text that is too long": b"p3," + b"x" * 200_000 + b",none\n",
}


@pytest.mark.parametrize("line", ODD_LINES.values(), ids=ODD_LINES)
def test_one_odd_row_of_a_csv_file_is_left_out_alone(tmp_path, line):
    reading = read(write(tmp_path, "a.csv", HEADER.encode() + GOOD.encode() + line))
    assert reading.records.texts == ("one", "two")
    assert reading.records.labels.tolist() == [0, 1]
    assert reading.records.patients.tolist() == [0, 1]
    assert reading.left_out == 1


ROW = {"patient_id": "p3", "text": "three", "label": "none"}
ODD_OBJECTS = {
    "a label of no plan": json.dumps({**ROW, "label": "hiv"}),
    "a text that is none": json.dumps({**ROW, "text": 5}),
    "no text": json.dumps({"patient_id": "p3", "label": "none"}),
    "half a surrogate pair": json.dumps({**ROW, "text": "\ud800"}),
    "an id that is a list": json.dumps({**ROW, "patient_id": [1]}),
    "no object": "[1]",
    "no JSON": "{",
}


@pytest.mark.parametrize("line", ODD_OBJECTS.values(), ids=ODD_OBJECTS)
def test_one_odd_row_of_json_lines_is_left_out_alone(tmp_path, line):
    good = [json.dumps({**ROW, "text": text}) for text in ("one", "two")]
    reading = read(write(tmp_path, "a.jsonl", "\n".join([good[0], line, good[1]])))
    assert reading.records.texts == ("one", "two")
    assert reading.left_out == 1


def test_one_odd_value_of_parquet_is_left_out_alone(tmp_path):
    odd = pyarrow.array([b"one", b"thr\xe9\xe9"]).view(pyarrow.string())
    parquet.write_table(
        pyarrow.table({"text": odd, "label": ["none"] * 2, "patient_id": [1, 2]}), tmp_path / "a.parquet"
    )
    reading = read(tmp_path / "a.parquet")
    assert (reading.records.texts, reading.left_out) == (("one",), 1)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("content", ["", "\n\n", HEADER])
def test_a_data_set_without_rows_is_one(tmp_path, name, content):
    assert len(read(write(tmp_path, name, content)).records) == 0


def test_without_a_patient_column_rows_are_left_out_all_the_same(tmp_path):
    reading = read(write(tmp_path, "a.csv", "text,label\none,none\ntwo,hiv\n"), patient=None)
    assert (reading.records.texts, reading.left_out) == (("one",), 1)


@pytest.mark.parametrize("rows", ["", GOOD, GOOD + "p3,,hiv\n", "broken\n"], ids=["none", "good", "odd", "broken"])
def test_the_set_up_fails_with_the_same_words_whatever_the_rows_are(tmp_path, rows):
    path = write(tmp_path, "a.csv", HEADER.replace("text", "note") + rows)
    found = []
    for files in ([path], [tmp_path / "gone.csv"], [tmp_path], [path, path], []):
        with pytest.raises(DataError) as caught:
            read(*files)
        found.append([str(problem) for problem in caught.value.problems])
    missing = f"{path}, column `text`: is missing"
    twice = f"{path}: is listed more than once"
    assert found == [
        [missing],
        [f"{tmp_path / 'gone.csv'}: does not exist"],
        [f"{tmp_path}: is a folder, not a file"],
        [missing, missing, twice],
        ["data files: none is given"],
    ]
