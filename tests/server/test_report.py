import json

import pytest

import server.report
from server.model_card import model_card
from server.report import is_finished, write_report
from server.results import RunReport, results
from tests.plans import make_plan
from tests.server.small_report import report_of


@pytest.fixture
def report() -> RunReport:
    return report_of(make_plan(rounds=9, stopping={"patience_rounds": 1}))


def test_the_folder_holds_picture_card_and_results(tmp_path, report):
    write_report(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning-curve.png", "model-card.md", "results.json"]
    assert (tmp_path / "learning-curve.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "model-card.md").read_text(encoding="utf-8") == model_card(report)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == results(report)
    assert text.endswith("}\n")
    write_report(report, tmp_path)
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_report_that_was_cut_short_is_never_taken_for_a_finished_run(tmp_path, report, monkeypatch, write):
    write_report(report, tmp_path)  # of an earlier attempt
    assert is_finished(tmp_path)
    calls = []

    def write_or_die(path, content):
        calls.append(path.name)
        if len(calls) == write:
            raise KeyboardInterrupt
        path.write_bytes(content)

    monkeypatch.setattr(server.report, "write_durably", write_or_die)
    with pytest.raises(KeyboardInterrupt):
        write_report(report, tmp_path)
    assert calls == ["learning-curve.png", "model-card.md", "results.json"][:write]
    assert not is_finished(tmp_path)
