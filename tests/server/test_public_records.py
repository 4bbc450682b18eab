import pytest

from common.errors import DataError
from server.config import PublicDataConfig
from server.public_records import check_public_data, public_records
from tests.plans import make_plan

ROWS = "text,label\nfever,event\nwell,none\nfine,none\n"
OTHER = "text,label\nfever,SECRET\nwell,none\nfine,SECRET\n"
PATIENT = {"patience_rounds": 2}


@pytest.fixture
def judged(tmp_path):
    """What is found about a plan and these public files."""
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "other.csv").write_text(OTHER)

    def judge(plan=None, **sets):
        return list(check_public_data(plan or make_plan(), PublicDataConfig(folder=str(tmp_path), **sets)))

    return judge


def test_sets_that_fit_are_counted(judged):
    (finding,) = judged(validation=["rows.csv"], test=["rows.csv"])
    assert (finding.level, finding.sentence) == ("pass", "1 file to judge rounds by, 1 to measure the result on")


@pytest.mark.parametrize("which", ["validation", "test"])
def test_labels_that_the_plan_lacks_are_told_with_file_column_and_number_and_without_a_value(judged, which, tmp_path):
    (finding,) = judged(**{which: ["rows.csv", "other.csv"]})
    assert finding.level == "fail"
    assert finding.sentence == f"{tmp_path}/other.csv, column `label`: is not one of the plan's labels in 2 rows"
    assert finding.mend == "the plan lists none, event; [public] in coordinator.toml names the file"
    assert "SECRET" not in repr(finding)


def test_every_problem_of_both_sets_is_told(judged, tmp_path):
    (tmp_path / "bare.csv").write_text("words,label\nfever,event\n")
    found = judged(validation=["gone.csv"], test=["bare.csv"])
    assert [finding.level for finding in found] == ["fail", "fail"]
    assert "gone.csv: does not exist" in found[0].sentence
    assert "column `text`: is missing" in found[1].sentence
    assert all(finding.mend for finding in found)


def test_stopping_by_a_loss_needs_a_set_to_judge_on(judged):
    patient = make_plan(stopping=PATIENT)
    assert [finding.level for finding in judged(patient)] == ["fail"]
    assert [finding.level for finding in judged(patient, test=["rows.csv"])] == ["fail", "pass"]
    assert [finding.level for finding in judged(patient, validation=["rows.csv"])] == ["pass"]


def test_no_public_files_are_a_warning(judged):
    assert [finding.level for finding in judged()] == ["warn"]


def test_what_the_check_passes_is_what_a_run_reads(tmp_path):
    config = PublicDataConfig(folder=str(tmp_path), test=["rows.csv"])
    (tmp_path / "rows.csv").write_text(ROWS)
    assert public_records(config, config.test_files, ("none", "event")).labels.tolist() == [1, 0, 0]
    with pytest.raises(DataError):
        public_records(config, config.test_files, ("yes", "no"))
