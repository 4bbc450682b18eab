from pathlib import Path

import pytest

from client.config import SiteConfig
from client.data_check import check_data, hold_records
from tests.client.small_plan import small_plan

# Words that stand in the rows only: none of them may come out.
SECRETS = ("Zebulon", "penicillin", "P-4711", "secretlabel")

DISTRIBUTED = small_plan(
    mode="distributed",
    local_steps=1,
    sites=4,
    roster={name: digit * 64 for name, digit in zip("abcd", "1234", strict=True)},
    secure_aggregation={"masked": True},
)


def config(folder: Path, **data) -> SiteConfig:
    values = {"name": "north", "data": {"folder": str(folder), "train": ["rows.csv"], **data}}
    return SiteConfig.model_validate(values)


def rows(folder: Path, labels=("no", "yes"), patients: int = 40) -> None:
    lines = ["patient_id,text,label"]
    for number in range(2 * patients):
        text = f"Zebulon had a reaction to penicillin on day {number}"
        lines.append(f"P-4711-{number % patients},{text},{labels[number % len(labels)]}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")


def levels(findings) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


def test_records_that_fit_pass(tmp_path: Path) -> None:
    rows(tmp_path, patients=100)
    found = check_data(config(tmp_path), small_plan())
    assert set(levels(found).values()) == {"pass"}
    assert "1 file, 200 rows of 100 patients" in found[0].sentence


def test_without_a_plan_labels_are_counted_and_not_named(tmp_path: Path) -> None:
    rows(tmp_path, labels=("secretlabel-a", "secretlabel-b", "secretlabel-c"))
    found = check_data(config(tmp_path), None)
    assert "balance" not in levels(found)
    assert [one.sentence.split()[0] for one in found if one.subject == "labels"] == ["3"]


@pytest.mark.parametrize(("labels", "level"), [(1, "warn"), (2, "pass"), (50, "pass"), (51, "warn")])
def test_a_label_column_that_is_none_is_noticed(tmp_path: Path, labels: int, level: str) -> None:
    rows(tmp_path, labels=[f"label {number}" for number in range(labels)], patients=60)
    assert levels(check_data(config(tmp_path), None))["labels"] == level


@pytest.mark.parametrize("plan", [None, small_plan(), DISTRIBUTED])
@pytest.mark.parametrize("labels", [("no", "yes"), ("no", "secretlabel")])
def test_nothing_of_a_row_is_in_a_finding(tmp_path: Path, plan, labels) -> None:
    rows(tmp_path, labels)
    text = repr(check_data(config(tmp_path), plan))
    assert not [secret for secret in SECRETS if secret in text]


def test_every_problem_is_a_finding_of_its_own(tmp_path: Path) -> None:
    rows(tmp_path, labels=("no", "secretlabel"))
    found = check_data(config(tmp_path, train=["rows.csv", "gone.csv"]), small_plan())
    assert [finding.level for finding in found] == ["fail", "fail"]
    assert "40 rows" in found[0].sentence
    assert "gone.csv" in found[1].sentence


def test_the_patient_column_counts_where_the_patient_is_the_unit(tmp_path: Path) -> None:
    rows(tmp_path)
    found = check_data(config(tmp_path, columns={"patient": ""}), small_plan())
    assert levels(found)["rows a patient"] == "fail"


def test_in_mode_distributed_a_site_need_not_fill_a_draw_alone(tmp_path: Path) -> None:
    rows(tmp_path, patients=5)
    found = levels(check_data(config(tmp_path), DISTRIBUTED))
    assert found["draw here"] == "pass"
    assert found["draw, if all are alike"] == "warn"
    assert levels(check_data(config(tmp_path), small_plan()))["draw"] == "fail"


@pytest.mark.parametrize(
    ("labels", "usable", "failed"),
    [(("no", "yes"), 400, False), (("no", "secretlabel"), 200, True), (("secretlabel",), 0, True)],
)
def test_rows_are_counted_as_a_training_would_use_them(tmp_path: Path, labels, usable: int, failed: bool) -> None:
    rows(tmp_path, labels, patients=200)
    fit = hold_records(config(tmp_path), small_plan())
    assert (fit.rows, fit.usable, fit.has_failed) == (400, usable, failed)
    assert fit.findings == check_data(config(tmp_path), small_plan())


@pytest.mark.parametrize(
    ("data", "rows_read"), [({"train": ["rows.csv", "gone.csv"]}, 0), ({"columns": {"patient": ""}}, 400)]
)
def test_a_set_up_that_the_node_refuses_makes_every_row_unusable(tmp_path: Path, data, rows_read: int) -> None:
    rows(tmp_path, patients=200)
    fit = hold_records(config(tmp_path, **data), small_plan())
    assert (fit.rows, fit.usable, fit.has_failed) == (rows_read, 0, True)
