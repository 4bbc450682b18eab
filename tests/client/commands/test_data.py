import json
from pathlib import Path

import pytest

from tests.site_commands import Play


@pytest.fixture
def play(tmp_path: Path) -> Play:
    rows = [f"p{number // 2},Zebulon came on day {number},{'event' if number % 3 else 'none'}" for number in range(600)]
    (tmp_path / "rows.csv").write_text("\n".join(["patient_id,text,label", *rows, ""]))
    play = Play(tmp_path)
    play.init("--data", str(tmp_path), "--train", "rows.csv")
    return play


def test_before_there_is_a_plan_the_files_are_checked(play: Play) -> None:
    ended = play("data", "check")
    assert ended.code == 0
    assert "600 rows of 300 patients" in ended.out
    assert "none is here yet" in ended.err
    assert "event" not in ended.out


def test_a_plan_is_checked_by_file_and_then_as_the_newest_here(play: Play) -> None:
    play("accept", play.invite(), "--fingerprint", play.fingerprint)
    _, path = play.sign()
    by_file = play("data", "check", "--plan", path)
    assert "all 2 labels occur" in by_file.out
    assert play("data", "check").out == by_file.out
    assert "study" in by_file.err


def test_records_that_do_not_fit_are_exit_3_without_a_word_of_them(play: Play) -> None:
    path = play.folder / "rows.csv"
    path.write_text(path.read_text().replace("Zebulon came on day 3,", ","))
    ended = play("data", "check")
    assert ended.code == 3
    assert "is empty in 1 row" in ended.out
    assert "Zebulon" not in ended.out + ended.err


def test_json_is_the_same_findings(play: Play) -> None:
    ended = play("data", "check", "--json")
    assert all(one["level"] == "pass" for one in json.loads(ended.out))


def test_nothing_is_written(play: Play) -> None:
    before = play.site.audit.read_bytes()
    play("data", "check")
    assert play.site.audit.read_bytes() == before
    assert not play.site.status.exists()
